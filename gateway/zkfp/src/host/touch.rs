//! One touch out of many captures: while a finger stays, every poll yields another capture.
//!
//! | state | sees | becomes | says |
//! |---|---|---|---|
//! | away | nothing | away | |
//! | away | a print, armed | resting, captured | touch, capture 1 |
//! | away | a bad placement, armed | resting | bad placement |
//! | resting | a print that is wanted, armed | resting, captured | touch, capture n |
//! | resting | a bad placement while a print is wanted | resting | bad placement, once |
//! | resting | anything else | resting | |
//! | resting | nothing, [`LIFT_ANSWERS`] times in a row | away | lifted |
//!
//! A print is wanted until the first capture, and again after [`Glass::want_another`]. One answer
//! of "nothing" isn't a lift: sensors lose a dry finger for a moment.

/// "No finger" answers in a row that make a lift.
pub(super) const LIFT_ANSWERS: u8 = 3;

/// A reader's glass, as its answers show it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Glass {
    #[default]
    Away,
    Resting(Resting),
}

/// A finger on the glass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resting {
    touch: u64,
    captures: u32,
    wanted: bool,
    said_bad: bool,
    misses: u8,
}

/// An answer of the sensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Nothing,
    Print,
    Bad,
}

/// What is to be reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Say {
    Nothing,
    Touch { touch: u64, capture: u32 },
    BadPlacement { touch: u64 },
    Lifted { touch: u64 },
}

impl Glass {
    /// Takes one answer. `next_touch` is the number of a touch that would begin now.
    pub(super) fn see(&mut self, seen: Seen, armed: bool, next_touch: u64) -> Say {
        match (*self, seen) {
            (Glass::Away, Seen::Nothing) => Say::Nothing,
            (Glass::Away, Seen::Print | Seen::Bad) if !armed => Say::Nothing,
            (Glass::Away, Seen::Print | Seen::Bad) => {
                let (resting, say) = Resting::new(next_touch).seen(seen, armed);
                *self = Glass::Resting(resting);
                say
            }
            (Glass::Resting(resting), Seen::Nothing) if resting.misses + 1 >= LIFT_ANSWERS => {
                *self = Glass::Away;
                Say::Lifted { touch: resting.touch }
            }
            (Glass::Resting(resting), Seen::Nothing) => {
                *self = Glass::Resting(Resting { misses: resting.misses + 1, ..resting });
                Say::Nothing
            }
            (Glass::Resting(resting), Seen::Print | Seen::Bad) => {
                let (resting, say) = resting.seen(seen, armed);
                *self = Glass::Resting(resting);
                say
            }
        }
    }

    /// Asks for another capture of the same touch; false without a finger.
    pub(super) fn want_another(&mut self) -> bool {
        match self {
            Glass::Away => false,
            Glass::Resting(resting) => {
                resting.wanted = true;
                resting.said_bad = false;
                true
            }
        }
    }

    /// Whether a finger is on the glass.
    pub(super) fn is_resting(&self) -> bool {
        matches!(self, Glass::Resting(_))
    }
}

impl Resting {
    fn new(touch: u64) -> Resting {
        Resting { touch, captures: 0, wanted: true, said_bad: false, misses: 0 }
    }

    fn seen(mut self, seen: Seen, armed: bool) -> (Resting, Say) {
        self.misses = 0;
        if !self.wanted || !armed {
            return (self, Say::Nothing);
        }
        match seen {
            Seen::Print => {
                self.captures += 1;
                self.wanted = false;
                (self, Say::Touch { touch: self.touch, capture: self.captures })
            }
            Seen::Bad if !self.said_bad => {
                self.said_bad = true;
                (self, Say::BadPlacement { touch: self.touch })
            }
            Seen::Bad | Seen::Nothing => (self, Say::Nothing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers in, reports out: `p` print, `b` bad, `.` nothing, `w` want another.
    fn reports(answers: &str, armed: bool) -> String {
        let (mut glass, mut touches) = (Glass::default(), 0);
        let mut report = String::new();
        for answer in answers.chars() {
            let seen = match answer {
                'p' => Seen::Print,
                'b' => Seen::Bad,
                '.' => Seen::Nothing,
                _ => {
                    report.push(if glass.want_another() { 'w' } else { '-' });
                    continue;
                }
            };
            match glass.see(seen, armed, touches + 1) {
                Say::Nothing => report.push(' '),
                Say::Touch { touch, capture } => {
                    assert!(touch == touches + 1 || capture > 1 || touch == touches);
                    touches = touch;
                    report.push_str(&capture.to_string());
                }
                Say::BadPlacement { touch } => {
                    touches = touch;
                    report.push('B');
                }
                Say::Lifted { touch } => {
                    assert_eq!(touch, touches);
                    report.push('L');
                }
            }
        }
        report
    }

    #[test]
    fn a_touch_is_reported_once_however_many_captures_it_has() {
        assert_eq!(reports(".pppp...p", true), " 1     L1");
    }

    #[test]
    fn a_finger_lost_for_a_moment_has_not_lifted() {
        assert_eq!(reports("p..p..p...", true), "1        L");
    }

    #[test]
    fn a_bad_placement_is_said_once_and_may_become_good() {
        assert_eq!(reports("bbbpb...", true), "B  1   L");
        assert_eq!(reports("bb...b", true), "B   LB");
    }

    #[test]
    fn another_capture_of_the_same_touch_comes_when_asked_for() {
        assert_eq!(reports("wppwpp...w", true), "-1 w2   L-");
        assert_eq!(reports("pwbbp", true), "1wB 2");
    }

    #[test]
    fn nothing_is_reported_when_not_armed() {
        assert_eq!(reports("ppb...p", false), "       ");
    }
}
