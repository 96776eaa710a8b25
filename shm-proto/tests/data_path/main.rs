//! What publishing and receiving do not do while nobody sleeps: allocate, and call the kernel.

mod allocations;
mod system_calls;

use shm_proto::{Reader, Result, Writer};

/// Small, so that it is gone around often: giving space back and looking for it again are part of the path.
const CAPACITY: u64 = 256 << 10;

/// Every way to publish and to receive, for messages of several sizes, `rounds` times. Returns the number of messages.
fn exchange(writer: &mut Writer, reader: &mut Reader, out: &mut Vec<u8>, rounds: usize) -> Result<u64> {
    let before = writer.messages();
    let payload = [7; 4096];
    for _ in 0..rounds {
        for size in [0, 8, 64, 100, 1024, 4096] {
            let message = &payload[..size];
            writer.publish(message)?;
            writer.try_publish(message)?;
            let mut slot = writer.reserve(size)?.expect("a block channel drops nothing");
            slot.fill(7);
            slot.commit(size)?;
            let mut batch = writer.batch();
            for _ in 0..4 {
                batch.push(message)?;
                batch.push_with(size, |slot| slot.fill(7))?;
            }
            batch.commit()?;

            assert_eq!(sum(reader.recv(None)?)?, 7 * size as u64);
            reader.recv_into(out, None)?;
            assert_eq!(out, message);
            {
                let mut together = reader.batch(4);
                while let Some(message) = together.next()? {
                    assert_eq!(sum(message)?, 7 * size as u64);
                }
            }
            while let Some(message) = reader.try_recv()? {
                assert_eq!(sum(message)?, 7 * size as u64);
            }
        }
        assert_eq!(writer.messages(), reader.seq(), "everything was received");
    }
    Ok(writer.messages() - before)
}

fn sum(message: shm_proto::Message<'_>) -> Result<u64> {
    let sum = message.words().map(|word| word.to_le_bytes().into_iter().map(u64::from).sum::<u64>()).sum();
    message.finish()?;
    Ok(sum)
}
