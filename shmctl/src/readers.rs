//! What tables of readers have in common.

use shm_proto::WaitStrategy;
use shm_proto::internal::control::stat::ReaderStat;

use crate::human::printable;
use crate::table::Align;

/// The first columns: which program a reader is.
pub(crate) const IDENTITY: [(&str, Align); 4] =
    [("READER", Align::Right), ("PID", Align::Right), ("PROGRAM", Align::Left), ("USER", Align::Left)];

/// The cells of these columns.
pub(crate) fn identity(reader: &ReaderStat) -> [String; 4] {
    [reader.reader.to_string(), reader.pid.to_string(), printable(&reader.program), printable(&reader.user)]
}

/// How the reader waits for messages, if that is not the default.
pub(crate) fn unusual_wait(reader: &ReaderStat) -> Option<String> {
    (reader.wait != WaitStrategy::Adaptive.to_string()).then(|| printable(&reader.wait))
}
