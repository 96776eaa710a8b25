//! Being asked to end.

use shmctl::companion::Failure;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Set by the first SIGINT or SIGTERM, for every task that has a copy.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// From now on the two signals do not end the process by themselves.
    pub(crate) fn on_signals() -> Result<Self, Failure> {
        let failed = |e: std::io::Error| Failure::Other(format!("cannot catch SIGINT and SIGTERM: {e}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let (set, seen) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if set.send_replace(true) {
                    // Whoever asks twice does not want to wait for acknowledgements.
                    std::process::exit(1);
                }
            }
        });
        Ok(Stop(seen))
    }

    pub(crate) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is set.
    pub(crate) async fn wait(&mut self) {
        if self.0.wait_for(|set| *set).await.is_err() {
            // Nobody can set it any more, which does not happen while the runtime lives.
            std::future::pending::<()>().await;
        }
    }
}
