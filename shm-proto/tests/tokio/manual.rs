//! The manual's example, as it stands there, between the two lines that say so: `shmd/tests/documents.rs` compares them.

use shm_proto::Start;
use shm_test_support::Daemon;

use crate::run;

#[test]
fn the_manuals_example_counts_every_message() {
    let daemon = Daemon::start("");
    let reader = daemon.reader(Start::New);
    let daemon = daemon.endpoint();
    run(async move { example(daemon).await }).unwrap();
    assert_eq!((reader.geometry().channel.as_str(), reader.received()), ("main", 0));
}

async fn example(daemon: shm_proto::Endpoint) -> Result<(), shm_proto::Error> {
    // MANUAL: begins
    use shm_proto::{AsyncReader, AsyncWriter, Start};

    let mut reader = AsyncReader::attach(&daemon, Some("main"), Start::New).await?;
    let mut writer = AsyncWriter::attach(&daemon, Some("main")).await?;
    writer.publish(b"hello").await?; // yields where a writer on a thread would wait for the readers
    let message = reader.recv().await?; // cancellation-safe: in `select!`, no message is lost
    println!("message {} has {} bytes", message.seq(), message.len());
    message.finish()?;
    // MANUAL: ends
    Ok(())
}
