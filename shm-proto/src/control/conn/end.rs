//! The end of a connection: nobody waits for what the peer has sent and this process has not taken.

use super::Conn;
use crate::os::closing;
use crate::os::hang_up::hang_up;

impl Drop for Conn {
    fn drop(&mut self) {
        closing::close(self.input.fds.drain(..).map(|(_, fd)| fd).collect());
        hang_up(&self.socket);
    }
}
