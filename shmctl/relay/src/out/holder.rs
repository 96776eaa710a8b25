//! The reader that holds the channel: it stands at the first message that the channel may not forget yet.
//!
//! In a channel with `on_full = "overwrite"` nobody holds anything, and this reader detaches. The next channel of that name may be
//! another one, so it attaches again when the reader that reads ahead has another instance.

use std::rc::Rc;
use std::time::{Duration, Instant};

use log::{info, warn};
use shm_proto::{AsyncFollower, Attachment, Endpoint, Follower, OnFull, Start, WaitStrategy};
use shmctl::companion::Failure;
use tokio::sync::{Notify, watch};

use super::queue::Mark;
use crate::status::Status;

/// How often it hears the daemon while it has nothing to do.
const TICK: Duration = Duration::from_millis(100);
/// Between two looks at the state.
const SHOW: Duration = Duration::from_secs(1);
/// Messages to pass before others get their turn.
const TURN: usize = 4096;

/// What has to stay in the channel.
#[derive(Debug)]
pub(super) struct Holder {
    endpoint: Endpoint,
    channel: Option<String>,
    follower: Option<AsyncFollower>,
    /// The instance to which the reader that reads ahead is attached.
    front: watch::Receiver<Option<u64>>,
    /// The last instance that overwrites.
    overwrites: Option<u64>,
    marks: watch::Receiver<Option<Mark>>,
    /// Instances that were left for good.
    past: Vec<u64>,
    mark: Option<Mark>,
    has_told: bool,
    status: Rc<Status>,
    /// When the reader shows the state again.
    show_at: Instant,
}

impl Holder {
    pub(super) fn new(
        endpoint: Endpoint,
        channel: Option<&str>,
        marks: watch::Receiver<Option<Mark>>,
        front: watch::Receiver<Option<u64>>,
        status: Rc<Status>,
    ) -> Result<Self, Failure> {
        let mut holder = Holder {
            endpoint,
            channel: channel.map(str::to_owned),
            follower: None,
            front,
            overwrites: None,
            marks,
            past: Vec::new(),
            mark: None,
            has_told: false,
            status,
            show_at: Instant::now(),
        };
        holder.begin()?;
        Ok(holder)
    }

    fn begin(&mut self) -> Result<(), Failure> {
        let follower = Follower::new(self.endpoint.clone(), self.channel.as_deref(), Start::Oldest)?;
        // It never waits for messages.
        self.follower = Some(AsyncFollower::new(follower.with_wait_strategy(WaitStrategy::Sleep))?);
        Ok(())
    }

    /// Holds and lets go until something final happens. `attached`: told when the channel is held.
    pub(super) async fn run(&mut self, attached: &Notify) -> Result<(), Failure> {
        loop {
            self.follow_mark();
            let is_done = self.advance(attached).await?;
            if self.follower.is_none() {
                self.await_another().await;
                self.begin()?;
                continue;
            }
            if !is_done {
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                _ = self.marks.changed() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// Waits until the other reader has another instance than the one that overwrites.
    async fn await_another(&mut self) {
        // The other reader may not have the one that overwrites yet.
        tokio::time::sleep(TICK).await;
        let overwrites = self.overwrites;
        if self.front.wait_for(|now| now.is_some() && *now != overwrites).await.is_err() {
            // The relay is about to end.
            std::future::pending().await
        }
    }

    fn follow_mark(&mut self) {
        let mark = *self.marks.borrow_and_update();
        if let (Some(before), Some(now)) = (self.mark, mark)
            && before.lineage != now.lineage
        {
            self.past.push(before.lineage);
        }
        self.mark = mark;
    }

    /// Passes what the channel may forget. Returns false if there may be more.
    async fn advance(&mut self, attached: &Notify) -> Result<bool, Failure> {
        let Some(tasks) = &mut self.follower else { return Ok(true) };
        let follower = tasks.get_mut().await?;
        if let Some(notice) = follower.notice() {
            warn!("{notice}");
        }
        if !follower.is_attached() {
            // Attaches meanwhile, without an end if there is no daemon.
            if let Ok(message) = tokio::time::timeout(TICK, tasks.recv()).await {
                let _stays = message?.into_ready();
            }
            return Ok(true);
        }
        attached.notify_one();
        let now = Instant::now();
        if now >= self.show_at {
            follower.set_status(&self.status.of_reader("holds what is not safe yet"));
            self.show_at = now + SHOW;
        }
        if let Some(Attachment::Ring(reader)) = follower.attachment()? {
            let geometry = reader.geometry();
            let is_another = self.overwrites != Some(geometry.lineage);
            if is_another && !std::mem::replace(&mut self.has_told, true) {
                tell(geometry.on_full, geometry.wait_readers, geometry.evict_after_ms);
            }
            if geometry.on_full == OnFull::Overwrite {
                // What the settings of the next one mean is told again.
                (self.overwrites, self.has_told) = (Some(geometry.lineage), false);
                self.follower = None;
                return Ok(true);
            }
        }
        let mut passed = 0;
        while passed < TURN {
            let Some(message) = follower.try_recv()? else { break };
            let (lineage, seq) = (message.reader().geometry().lineage, message.seq());
            let may_go =
                self.past.contains(&lineage) || self.mark.is_some_and(|mark| mark.lineage == lineage && seq < mark.seq);
            if !may_go {
                let _stays = message.into_ready();
                break;
            }
            passed += 1;
            if let Err(error) = message.finish() {
                follower.go_on_after(error)?;
            }
        }
        if passed > 0
            && let Some(Attachment::Ring(reader)) = follower.attachment()?
        {
            // The end of a batch gives the space back.
            drop(reader.batch(0));
        }
        if follower.is_attached() {
            follower.arm()?;
        }
        Ok(passed < TURN)
    }
}

/// What the channel's settings mean for the relay.
fn tell(on_full: OnFull, wait_readers: u32, evict_after_ms: u64) {
    match on_full {
        OnFull::Overwrite => {
            info!("the channel overwrites its oldest messages: those that the link is too slow for are lost")
        }
        OnFull::Drop => {
            info!("the channel drops new messages while it is full: a link that stands still makes it drop them")
        }
        OnFull::Block => {
            if wait_readers < 2 {
                info!(
                    "the channel has wait_readers = {wait_readers}: if this relay is killed, messages that the server has not \
                     acknowledged may be lost; wait_readers = 2 keeps them, because a relay is two readers"
                );
            }
            if evict_after_ms > 0 {
                let seconds = evict_after_ms as f64 / 1000.0;
                info!(
                    "the channel has evict_after = {seconds} s: if a link that stands still keeps the channel full for longer, this \
                     relay is evicted and messages are lost; evict_after = \"0\" or --when-stalled spool:DIR:SIZE prevents it"
                );
            }
        }
    }
}
