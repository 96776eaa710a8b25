//! Whatever the messages are, and however the input is cut.

use proptest::prelude::*;

use super::*;

fn message_size() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0usize..100, 2 => 0usize..3 * IN_PLACE, 1 => 0usize..2 * BUFFER]
}

fn piece_sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1usize..10, 1usize..2 * IN_PLACE, 1usize..2 * BUFFER], 1..8)
}

fn sizes() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
    // Tiny pieces only for small inputs: a byte a step of a megabyte takes long and shows nothing new.
    (prop::collection::vec(message_size(), 0..40), piece_sizes()).prop_map(|(messages, mut pieces)| {
        if messages.iter().sum::<usize>() > 50_000 {
            pieces.push(BUFFER);
        }
        (messages, pieces)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn messages_come_out_as_they_went_in_however_the_input_is_cut(
        (message_sizes, pieces) in sizes(), has_places: bool, knows: bool, which in 0..3
    ) {
        let messages: Vec<_> = message_sizes.iter().enumerate().map(|(n, &len)| body(n, len)).collect();
        let (framing, input): (_, Vec<u8>) = match which {
            0 => (Framing::Lines, messages.iter().flat_map(|m| [&m[..], b"\n"].concat()).collect()),
            1 => (Framing::Nul, messages.iter().flat_map(|m| [&m[..], b"\0"].concat()).collect()),
            _ => (Framing::Length, messages.iter().flat_map(|m| with_length(m)).collect()),
        };
        let max = message_sizes.iter().copied().max().unwrap_or(0) as u64;
        let mut sink = List::new(has_places);
        pump(framing, max, &mut Pieces::cut(&input, &pieces).that_knows(knows), &mut sink).unwrap();
        prop_assert!(sink.messages == messages);
    }

    #[test]
    fn chunks_put_together_are_the_input(
        len in 0usize..300_000, size in prop_oneof![1000usize..5000, IN_PLACE - 2..5 * IN_PLACE], pieces in piece_sizes(),
        has_places: bool, knows: bool
    ) {
        let input = body(0, len);
        let mut pieces = pieces;
        pieces.push(BUFFER);
        let mut sink = List::new(has_places);
        pump(Framing::Chunk(size as u64), size as u64, &mut Pieces::cut(&input, &pieces).that_knows(knows), &mut sink).unwrap();
        prop_assert!(sink.messages.concat() == input);
        prop_assert!(sink.messages.iter().rev().skip(1).all(|m| m.len() == size));
        prop_assert!(sink.messages.iter().all(|m| !m.is_empty()));
    }
}
