//! Whether what comes should take the place of what is there.
//!
//! No rule is right for all programs. Where a program loops over more than there is, the page that is used next is always the one that
//! left first: only a part that stays, whatever comes, is ever found again. Where it moves on, a part that stays is lost memory. So
//! both are done, as in set dueling (Qureshi et al., ISCA 2007): a sixteenth of the pages is always kept in the one way, another in
//! the other, each by its share of memory, and all others follow the one that had fewer of its pages brought back.
//!
//! What it trades: where the one rule is right, a sixteenth of the pages is kept by the other.

/// Parts of which each leading group has one.
pub(super) const SHARES: usize = 16;
/// Pages next to each other that are of one group, so that runs of pages leave and come as such.
const BLOCK: u64 = 16;

/// Pages brought back by both leading groups between two decisions.
const ROUND: u32 = 512;
/// Staying put is taken up when it has at most this many percent of the others', and left from the other share on.
const BETTER: u64 = 80;
const NO_BETTER: u64 = 95;

/// A group of pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Group {
    /// What comes takes the place of what is oldest.
    Moving,
    /// What is there stays.
    Staying,
    /// As the better one.
    Following,
}

impl Group {
    pub(super) const ALL: [Group; 3] = [Group::Moving, Group::Staying, Group::Following];

    /// How much of memory it has, in [`SHARES`].
    pub(super) fn share(self) -> usize {
        if self == Group::Following { SHARES - 2 } else { 1 }
    }

    /// That of a page. In each [`SHARES`] neighbours there is one of each leading group.
    pub(super) fn of(memory: u32, page: u64) -> Group {
        let (place, row) = (page / BLOCK % SHARES as u64, page / BLOCK / SHARES as u64);
        let random = (row ^ u64::from(memory) << 28).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let moving = random % SHARES as u64;
        let staying = (moving + 1 + random / SHARES as u64 % (SHARES as u64 - 1)) % SHARES as u64;
        match place {
            place if place == moving => Group::Moving,
            place if place == staying => Group::Staying,
            _ => Group::Following,
        }
    }
}

/// The score: pages brought back, those of long ago counted for less.
#[derive(Default)]
pub(super) struct Duel {
    moving: u32,
    staying: u32,
    /// Of the round.
    now: [u32; 2],
    stays: bool,
}

impl Duel {
    /// A page of `group` was brought back; so many pages are resident. Returns whether the others change their way.
    pub(super) fn missed(&mut self, group: Group, resident: usize) -> bool {
        match group {
            Group::Moving => self.now[0] += 1,
            Group::Staying => self.now[1] += 1,
            Group::Following => return false,
        }
        let [moving, staying] = self.now;
        if moving + staying < ROUND {
            return false;
        }
        self.now = [0; 2];
        self.moving += moving;
        self.staying += staying;
        let limit = if self.stays { NO_BETTER } else { BETTER };
        let stays = u64::from(self.staying) * 100 <= u64::from(self.moving) * limit;
        // Leading pages brought back while all that is resident is replaced twice, an eighth of them being leading: a loop goes
        // over parts that the one way has and over parts that the other has.
        let horizon = u32::try_from(resident).unwrap_or(u32::MAX).max(4 * ROUND) / 4;
        let fade = |sum: u32| sum - (u64::from(sum) * u64::from(ROUND) / u64::from(horizon)) as u32;
        (self.moving, self.staying) = (fade(self.moving), fade(self.staying));
        std::mem::replace(&mut self.stays, stays) != stays
    }

    /// Whether pages of `group` stay where they are.
    pub(super) fn stays(&self, group: Group) -> bool {
        match group {
            Group::Moving => false,
            Group::Staying => true,
            Group::Following => self.stays,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_has_its_share_of_every_neighbourhood() {
        for memory in [0, 1, 77] {
            for row in 0..1000 {
                let first = row * BLOCK * SHARES as u64;
                let groups: Vec<Group> = (0..SHARES as u64)
                    .map(|block| {
                        let group = Group::of(memory, first + block * BLOCK);
                        let others = first + block * BLOCK..first + (block + 1) * BLOCK;
                        assert!(others.into_iter().all(|page| Group::of(memory, page) == group));
                        group
                    })
                    .collect();
                for group in Group::ALL {
                    assert_eq!(groups.iter().filter(|other| **other == group).count(), group.share());
                }
            }
        }
        // Not always the same blocks.
        let places = (0..1000).filter(|row| Group::of(0, row * BLOCK * SHARES as u64) == Group::Moving);
        assert!((30..100).contains(&places.count()));
    }

    /// Whether the followers stay after so many pages of either group were brought back, in turn.
    fn after(duel: &mut Duel, moving: u32, staying: u32) -> bool {
        for at in 0..100 * (moving + staying) {
            let is_moving = at % (moving + staying) < moving;
            duel.missed(if is_moving { Group::Moving } else { Group::Staying }, 1000);
            assert!(!duel.missed(Group::Following, 1000));
        }
        assert!(duel.stays(Group::Staying) && !duel.stays(Group::Moving));
        duel.stays(Group::Following)
    }

    #[test]
    fn the_others_follow_the_better_one() {
        let mut duel = Duel::default();
        assert!(!after(&mut duel, 10, 10));
        assert!(!after(&mut duel, 10, 9), "not by far");
        assert!(after(&mut duel, 10, 6));
        assert!(after(&mut duel, 10, 9), "it is still better");
        assert!(!after(&mut duel, 10, 10));
        assert!(after(&mut duel, 50, 0));
        assert!(!after(&mut duel, 10, 30));
        // With more pages, what was before is remembered for longer.
        let rounds = |resident: usize| {
            let mut duel = Duel { moving: 10_000, ..Duel::default() };
            (0..100_000)
                .take_while(|_| {
                    duel.missed(Group::Staying, resident);
                    duel.staying * 2 < duel.moving
                })
                .count()
        };
        assert!(rounds(1_000_000) * 2 > rounds(10_000) * 3);
    }
}
