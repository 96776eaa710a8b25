//! Writes messages at even distances with the writer of the crate `mcap`, and prints how long that took: for `measure`.
//!
//!     mcap_writer FILE COUNT BYTES INTERVAL_NS

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::time::Instant;

use mcap::WriteOptions;
use mcap::records::MessageHeader;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, numbers @ ..] = args.as_slice() else { return Err("mcap_writer FILE COUNT BYTES INTERVAL_NS".into()) };
    let numbers: Vec<u64> = numbers.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let [count, len, interval] = numbers[..] else { return Err("mcap_writer FILE COUNT BYTES INTERVAL_NS".into()) };
    // Another message each time, so that none is in the cache because it was just written.
    let source = vec![7; (64 << 20) + usize::try_from(len)?];
    let begun = Instant::now();
    // As the recorder's files are: chunks with a checksum, and no checksum of the whole data section.
    let options = WriteOptions::new().compression(None).calculate_data_section_crc(false);
    let mut writer = options.create(BufWriter::with_capacity(1 << 20, File::create(path)?))?;
    let channel_id = writer.add_channel(0, "run", "", &BTreeMap::new())?;
    for n in 0..count {
        let header =
            MessageHeader { channel_id, sequence: n as u32, log_time: n * interval, publish_time: n * interval };
        let start = usize::try_from(n * len % (64 << 20))?;
        writer.write_to_known_channel(&header, &source[start..start + usize::try_from(len)?])?;
    }
    writer.finish()?;
    drop(writer);
    println!("{:.6}", begun.elapsed().as_secs_f64());
    Ok(())
}
