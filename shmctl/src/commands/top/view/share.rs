//! How many lines each part of the view gets.

/// Lines of each part, its heading included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shares {
    pub(super) channels: usize,
    pub(super) readers: usize,
    pub(super) pane: usize,
    pub(super) operations: usize,
}

impl Shares {
    /// Of `rows` lines no part gets more than it wants. What matters most comes first, and what has no room is left out.
    pub(super) fn of(rows: usize, wanted: &Shares) -> Shares {
        let mut has = Shares::default();
        let mut left = rows;
        // Adds at least `least` lines or nothing, and no more than `most` in all.
        let mut give = |has: &mut usize, wanted: usize, least: usize, most: usize| {
            let more = wanted.min(most).saturating_sub(*has).min(left);
            if more >= least.min(wanted) {
                *has += more;
                left -= more;
            }
        };
        give(&mut has.channels, wanted.channels, 1, 2);
        give(&mut has.readers, wanted.readers, 2, 2);
        give(&mut has.channels, wanted.channels, 1, 4);
        if has.readers > 0 {
            give(&mut has.readers, wanted.readers, 1, 4);
        }
        give(&mut has.operations, wanted.operations, 2, 3);
        give(&mut has.pane, wanted.pane, wanted.pane, usize::MAX);
        for most in [9, usize::MAX] {
            if has.readers > 0 {
                give(&mut has.readers, wanted.readers, 1, most);
            }
            give(&mut has.channels, wanted.channels, 1, most);
            if has.operations > 0 {
                give(&mut has.operations, wanted.operations, 1, most);
            }
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(channels: usize, readers: usize, pane: usize, operations: usize) -> Shares {
        Shares { channels, readers, pane, operations }
    }

    #[test]
    fn every_part_has_lines_on_a_usual_screen() {
        for (rows, wanted, has) in [
            (21, shares(4, 6, 4, 100), shares(4, 6, 4, 7)),
            (21, shares(31, 65, 4, 100), shares(5, 9, 4, 3)),
            (21, shares(31, 0, 0, 100), shares(12, 0, 0, 9)),
            (21, shares(31, 0, 0, 3), shares(18, 0, 0, 3)),
            (7, shares(31, 65, 4, 100), shares(4, 3, 0, 0)),
            (3, shares(31, 65, 4, 100), shares(3, 0, 0, 0)),
            (60, shares(2, 2, 4, 100), shares(2, 2, 4, 52)),
            (60, shares(2, 2, 4, 5), shares(2, 2, 4, 5)),
        ] {
            assert_eq!(Shares::of(rows, &wanted), has, "{rows} {wanted:?}");
        }
    }

    #[test]
    fn no_more_lines_are_given_than_there_are_and_a_part_is_more_than_its_heading() {
        for rows in 0..60 {
            for (channels, readers, operations) in [(2, 0, 0), (2, 2, 0), (31, 65, 100), (3, 65, 2), (31, 2, 100)] {
                let wanted = shares(channels, readers, 4, operations);
                let has = Shares::of(rows, &wanted);
                let sum = has.channels + has.readers + has.pane + has.operations;
                assert!(sum <= rows, "{rows} {has:?}");
                assert!(has.readers != 1 && has.operations != 1 && [0, 4].contains(&has.pane), "{rows} {has:?}");
            }
        }
    }
}
