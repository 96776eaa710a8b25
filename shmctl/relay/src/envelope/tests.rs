use proptest::prelude::*;

use super::*;

/// An envelope of messages with these contents.
fn filled(lineage: u64, first: u64, times: bool, messages: &[Vec<u8>]) -> Bytes {
    let mut builder = Builder::new(1 << 20);
    for (n, message) in messages.iter().enumerate() {
        let head = Head { lineage, seq: first + n as u64, time: times.then_some(1000 + n as u64) };
        assert!(builder.accepts(&head, message.len()));
        builder.append(head, |out| out.extend_from_slice(message));
    }
    builder.finish().unwrap()
}

fn contents(envelope: &Envelope) -> Vec<(u64, Option<u64>, Vec<u8>)> {
    envelope.items().map(|item| (item.seq, item.time, item.bytes.to_vec())).collect()
}

/// Some contents of envelopes: lineage, first number, times or not, messages.
fn some() -> impl Strategy<Value = (u64, u64, bool, Vec<Vec<u8>>)> {
    let messages = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..20);
    (any::<u64>(), 0..u64::MAX / 2, any::<bool>(), messages)
}

proptest! {
    #[test]
    fn what_goes_in_comes_out((lineage, first, times, messages) in some()) {
        let envelope = Envelope::open(filled(lineage, first, times, &messages)).unwrap();
        prop_assert_eq!(envelope.lineage(), lineage);
        prop_assert_eq!(envelope.start(), Place::message(first));
        prop_assert_eq!(envelope.end(), Place::message(first + messages.len() as u64));
        let wanted: Vec<_> = messages
            .into_iter()
            .enumerate()
            .map(|(n, bytes)| (first + n as u64, times.then_some(1000 + n as u64), bytes))
            .collect();
        prop_assert_eq!(contents(&envelope), wanted);
    }

    #[test]
    fn the_rest_of_an_envelope_has_the_rest_of_its_messages((lineage, first, times, messages) in some(), skip in 0u64..25) {
        let whole = Envelope::open(filled(lineage, first, times, &messages)).unwrap();
        let left: Vec<_> = contents(&whole).into_iter().skip(skip as usize).collect();
        let rest = whole.from(Place::message(first + skip));
        prop_assert_eq!(rest.map(|rest| contents(&rest)).unwrap_or_default(), left);
    }

    #[test]
    fn parts_make_the_message(message in prop::collection::vec(any::<u8>(), 1..300), size in 1usize..50, cut in 0u64..300) {
        let head = Head { lineage: 7, seq: 9, time: Some(5) };
        let total = message.len() as u64;
        let cut = Place { seq: 9, offset: cut };
        let mut made = Vec::new();
        for (n, piece) in message.chunks(size).enumerate() {
            let offset = (n * size) as u64;
            let bytes = part(&head, Part { offset, total }, piece.len(), |out| out.copy_from_slice(piece));
            let envelope = Envelope::open(bytes).unwrap();
            prop_assert_eq!(envelope.start(), Place { seq: 9, offset });
            let is_last = offset + piece.len() as u64 == total;
            prop_assert_eq!(envelope.end() == Place::message(10), is_last);
            if let Some(rest) = envelope.from(cut) {
                prop_assert_eq!(rest.part().unwrap().offset, cut.offset.max(offset));
                made.extend(rest.items().flat_map(|item| item.bytes));
            }
        }
        prop_assert_eq!(&made[..], message.get(cut.offset as usize..).unwrap_or_default());
    }

    #[test]
    fn garbage_is_refused_or_adds_up(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        adds_up(bytes);
    }

    #[test]
    fn what_begins_as_an_envelope_is_refused_or_adds_up(
        flags in 0u8..4,
        count in prop_oneof![0u32..8, any::<u32>()],
        rest in prop::collection::vec(prop_oneof![3 => Just(0), 1 => 0u8..20, 1 => any::<u8>()], 0..120),
    ) {
        let mut bytes = vec![VERSION, flags, 0, 0];
        bytes.extend(count.to_le_bytes());
        bytes.extend(rest);
        adds_up(bytes);
    }

    #[test]
    fn an_envelope_with_a_wrong_byte_is_refused_or_adds_up(
        (lineage, first, times, messages) in some(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = filled(lineage, first, times, &messages).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        adds_up(bytes);
    }
}

/// Whatever is taken for an envelope has as many bytes as it came with, and no message lies outside.
fn adds_up(bytes: Vec<u8>) {
    let len = bytes.len();
    let Ok(envelope) = Envelope::open(bytes.into()) else { return };
    let payload: usize = envelope.items().map(|item| item.bytes.len()).sum();
    assert!(HEADER + payload + envelope.count * LENGTH <= len);
    assert!(envelope.start() < envelope.end());
    assert_eq!(envelope.items().count(), envelope.count);
}

#[test]
fn an_envelope_has_the_documented_bytes() {
    let head = |seq| Head { lineage: 0x0807_0605_0403_0201, seq, time: Some(0x11) };
    let mut builder = Builder::new(1000);
    builder.append(head(3), |out| out.extend_from_slice(b"ab"));
    builder.append(head(4), |out| out.extend_from_slice(b"c"));
    let wanted: Vec<u8> = [
        &[1, 1, 0, 0][..],
        &[2, 0, 0, 0],
        &[1, 2, 3, 4, 5, 6, 7, 8],
        &[3, 0, 0, 0, 0, 0, 0, 0],
        b"abc",
        &[0x11, 0, 0, 0, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0, 0, 0],
        &[2, 0, 0, 0, 1, 0, 0, 0],
    ]
    .concat();
    assert_eq!(builder.finish().unwrap(), wanted);
    let bytes = part(&Head { lineage: 1, seq: 2, time: None }, Part { offset: 3, total: 9 }, 1, |out| out[0] = b'x');
    let behind = [&b"x"[..], &[1, 0, 0, 0], &[3, 0, 0, 0, 0, 0, 0, 0], &[9, 0, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!((bytes[1], &bytes[HEADER..]), (2, &behind[..]));
}

#[test]
fn a_count_that_cannot_be_costs_nothing() {
    let mut bytes = vec![VERSION, 1, 0, 0];
    bytes.extend(u32::MAX.to_le_bytes());
    bytes.extend([0; 64]);
    let error = Envelope::open(bytes.into()).unwrap_err().to_string();
    assert!(error.contains("too few for the tables of 4294967295 messages"), "{error}");
}

#[test]
fn a_builder_takes_only_what_follows_and_fits() {
    let head = |lineage, seq, time| Head { lineage, seq, time };
    let mut builder = Builder::new(HEADER + 30);
    assert!(builder.accepts(&head(1, 5, None), 26) && !builder.accepts(&head(1, 5, None), 27));
    builder.append(head(1, 5, None), |out| out.extend_from_slice(&[0; 10]));
    assert!(builder.accepts(&head(1, 6, None), 12) && !builder.accepts(&head(1, 6, None), 13));
    for other in [head(1, 5, None), head(1, 7, None), head(2, 6, None), head(1, 6, Some(1))] {
        assert!(!builder.accepts(&other, 1), "{other:?}");
    }
    builder.append(head(1, 6, None), |out| out.extend_from_slice(b"dropped"));
    builder.undo();
    let envelope = Envelope::open(builder.finish().unwrap()).unwrap();
    assert_eq!(envelope.end(), Place::message(6));
    builder.append(head(1, 6, None), |_| {});
    builder.undo();
    assert!(builder.is_empty() && builder.finish().is_none());
    assert!(builder.accepts(&head(9, 0, None), 0), "after the last message was taken out, any may be the first");
}

/// The table exists twice, for those who read documents and for those who read code.
#[test]
fn the_document_has_the_table_of_the_module() {
    let (document, source) = (include_str!("../../../../etc/RELAY.md"), include_str!("../envelope.rs"));
    let rows: Vec<_> = source.lines().filter_map(|line| line.strip_prefix("//! |")).collect();
    assert!(rows.len() > 10);
    for row in rows {
        assert!(document.contains(&format!("\n|{row}\n")), "RELAY.md has no row |{row}");
    }
}
