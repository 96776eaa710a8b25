//! Messages that are due at fixed moments, and carry these: a writer that is late does not hide how long they waited.

use shm_proto::internal::os::clock::monotonic_ns;

use super::{Sender, around, measured};
use crate::Result;
use crate::cpu::CpuTime;
use crate::job::Job;
use crate::outcome::Measured;
use crate::payload::{END, START};

/// Message *n* is due at the start plus *n* intervals and carries this moment, also if it is sent later. What
/// [`catch`](super::catch) measures is then how long it was on its way after it was due.
pub(crate) fn keep_rate(job: &Job, to: &mut impl Sender) -> Result<Measured> {
    let mut number = 0;
    while number < around(job) {
        to.send_stamped(number, monotonic_ns())?;
        number += 1;
    }
    let start = monotonic_ns();
    let (counts, ends) = (start + job.warm_up_ns, start + job.warm_up_ns + job.duration_ns);
    let (mut now, mut due_ps) = (start, 0);
    let mut first = None;
    loop {
        let due = start + due_ps / 1000;
        // A writer that is behind does not look at the clock before it has caught up.
        while now < due {
            now = monotonic_ns();
        }
        match first {
            Some((first, used)) if due >= ends => {
                to.send_stamped(number | END, due)?;
                return measured(number - first, monotonic_ns() - counts, used);
            }
            None if due >= counts => {
                first = Some((number, CpuTime::now()?));
                to.send_stamped(number | START, due)?;
            }
            _ => to.send_stamped(number, due)?,
        }
        number += 1;
        due_ps += job.interval_ps;
    }
}
