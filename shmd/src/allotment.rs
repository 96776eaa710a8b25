//! How many channels users may make at run time, and how much memory these may come to take. Pure.
//!
//! The limits do not apply to root and the daemon's own user, whose channels do not count: they may edit the configuration as well.

/// A number of channels, and the bytes that they may come to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    /// Channels.
    pub(crate) channels: u32,
    /// Bytes.
    pub(crate) bytes: u64,
}

impl Amount {
    /// The sum of these channels. Each is given as the bytes that it may come to take.
    pub(crate) fn of(channels: impl Iterator<Item = u64>) -> Self {
        channels.fold(Amount::default(), |sum, bytes| Amount {
            channels: sum.channels.saturating_add(1),
            bytes: sum.bytes.saturating_add(bytes),
        })
    }

    /// One user's part of it: half, and of an odd number of channels the larger half.
    pub(crate) fn share(self) -> Self {
        Amount { channels: self.channels.div_ceil(2), bytes: self.bytes / 2 }
    }
}

/// A limit that another channel would pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The user has as many as one user may have.
    OwnChannels,
    /// The user's channels would take more than those of one user may take.
    OwnMemory,
    /// All users together have as many as there may be.
    AllChannels,
    /// The channels of all users would take more than there may be.
    AllMemory,
}

/// Whether a user may have another channel, which may come to take `bytes`. `own` is what the user has, `all` what all users have,
/// and `most` what all users may have.
///
/// # Errors
/// The limit that is in the way.
pub(crate) fn admit(bytes: u64, own: Amount, all: Amount, most: Amount) -> Result<(), Over> {
    let share = most.share();
    let is_over = |has: u64, most: u64| has.saturating_add(bytes) > most;
    if own.channels >= share.channels {
        Err(Over::OwnChannels)
    } else if is_over(own.bytes, share.bytes) {
        Err(Over::OwnMemory)
    } else if all.channels >= most.channels {
        Err(Over::AllChannels)
    } else if is_over(all.bytes, most.bytes) {
        Err(Over::AllMemory)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Amount = Amount { channels: 4, bytes: 1000 };

    fn amount(channels: u32, bytes: u64) -> Amount {
        Amount { channels, bytes }
    }

    #[test]
    fn one_user_has_half_and_all_users_together_everything() {
        let admitted = |bytes, own, all| admit(bytes, own, all, MOST);
        assert_eq!(admitted(500, amount(0, 0), amount(0, 0)), Ok(()));
        assert_eq!(admitted(501, amount(0, 0), amount(0, 0)), Err(Over::OwnMemory));
        assert_eq!(admitted(1, amount(1, 499), amount(1, 499)), Ok(()));
        assert_eq!(admitted(1, amount(1, 500), amount(1, 500)), Err(Over::OwnMemory));
        assert_eq!(admitted(1, amount(2, 2), amount(2, 2)), Err(Over::OwnChannels));
        assert_eq!(admitted(1, amount(1, 1), amount(4, 4)), Err(Over::AllChannels));
        assert_eq!(admitted(500, amount(0, 0), amount(2, 501)), Err(Over::AllMemory));
        assert_eq!(admitted(u64::MAX, amount(1, u64::MAX), amount(1, u64::MAX)), Err(Over::OwnMemory));
    }

    #[test]
    fn a_limit_of_one_is_for_one_user_and_a_limit_of_nothing_is_nobodys() {
        let most = |channels| amount(channels, 1000);
        assert_eq!(admit(1, amount(0, 0), amount(0, 0), most(1)), Ok(()));
        assert_eq!(admit(1, amount(0, 0), amount(1, 1), most(1)), Err(Over::AllChannels));
        assert_eq!(admit(1, amount(0, 0), amount(0, 0), most(0)), Err(Over::OwnChannels));
        assert_eq!(admit(1, amount(0, 0), amount(0, 0), amount(2, 1)), Err(Over::OwnMemory));
    }

    #[test]
    fn channels_are_counted_with_what_they_may_come_to_take() {
        assert_eq!(Amount::of([1, 2, 3].into_iter()), amount(3, 6));
        assert_eq!(Amount::of([u64::MAX, 1].into_iter()).bytes, u64::MAX);
    }
}
