//! How a session ends by this side's wish: asked for a logout, then told, then ended.
//!
//! ```text
//! None --(asked to log out)--> Asked --(its time is over)--> Dismissed --(last words)--> ended
//! ```

use core::time::Duration;

use engine::Instant;

use super::Session;

/// How long a session that was told that it ends has to take that.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Seconds that an initiator has to negotiate when it is asked to.
const NEGOTIATION_SECONDS: u16 = 5;

/// How far the end of a session is that this side wants. A time that is `None` begins with the next turn.
#[derive(Clone, Copy, Debug)]
pub(super) enum Farewell {
    /// Nobody wants it.
    None,
    /// The initiator was asked to log out.
    Asked { seconds: u16, until: Option<Instant>, why: &'static str },
    /// It was told that the session ends.
    Dismissed { until: Option<Instant>, why: &'static str },
}

impl Session {
    /// Ends the session behind what it was answered, and says that it may come back after `seconds` (asynchronous event 3).
    pub(in crate::export) fn dismiss(&mut self, seconds: u16, why: &'static str) {
        if self.is_full_feature() {
            self.links.give_up();
            self.links.iter_mut().for_each(|link| link.connection.dismiss(seconds, why));
            self.farewell = Farewell::Dismissed { until: None, why };
        } else {
            self.end(why);
        }
    }

    /// The same, unless that was done before.
    pub(super) fn dismiss_once(&mut self, seconds: u16, why: &'static str) {
        if !matches!(self.farewell, Farewell::Dismissed { .. }) {
            self.dismiss(seconds, why);
        }
    }

    /// Ends it so, and says of each connection that it is dropped (event 2).
    fn dismiss_connections(&mut self, why: &'static str) {
        self.links.give_up();
        self.links.iter_mut().for_each(|link| link.connection.dismiss_connection(why));
        self.farewell = Farewell::Dismissed { until: None, why };
    }

    /// Asks the initiator to negotiate, and tells it then that data segments of this length are taken.
    pub(in crate::export) fn renegotiate(&mut self, max_recv_data_segment_length: u32) {
        for link in self.links.iter_mut() {
            link.connection.renegotiate(NEGOTIATION_SECONDS, max_recv_data_segment_length);
        }
    }

    /// Asks the initiator to log out; the connections of one that does not within `seconds` are dropped.
    pub(in crate::export) fn request_logout(&mut self, seconds: u16, why: &'static str) {
        match self.farewell {
            Farewell::None if self.is_full_feature() => {
                self.links.iter_mut().for_each(|link| link.connection.request_logout(seconds));
                self.farewell = Farewell::Asked { seconds, until: None, why };
            }
            Farewell::None => self.end(why),
            Farewell::Asked { .. } | Farewell::Dismissed { .. } => {}
        }
    }

    /// Goes on with a farewell whose time has come.
    pub(super) fn take_leave(&mut self, now: Instant) {
        match &mut self.farewell {
            Farewell::None => {}
            Farewell::Asked { seconds, until, why } => {
                let (seconds, why) = (*seconds, *why);
                let until = *until.get_or_insert(now + Duration::from_secs(seconds.into()));
                if now >= until {
                    //= rfc7143#section-11.9.1(a): who has not logged out is told that its connection is dropped.
                    self.dismiss_connections(why);
                }
            }
            Farewell::Dismissed { until, why } => {
                let why = *why;
                if now >= *until.get_or_insert(now + LAST_WORDS) {
                    self.end(why);
                }
            }
        }
    }
}
