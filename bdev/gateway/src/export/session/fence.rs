//! The response fence (RFC 7143 section 4.2.2.3.4): the answer to a function that ends several tasks leaves when the initiator has
//! acknowledged what was sent before on the session's other connections, so that no status of before comes behind it.
//!
//! On the connection that the request came by, the order of its PDUs is the fence.

use iscsi::TaskId;
use iscsi::target::TaskResponse;

use super::{Request, Session};

/// What becomes of the session behind an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// It goes on.
    GoesOn,
    /// It ends.
    Ends,
    /// Every session of the target does.
    AllEnd,
}

/// An answer that waits.
pub(super) struct Fenced {
    request: TaskId,
    response: TaskResponse,
    then: Then,
    /// The other connections, by the target's number of each, with where their statuses ended.
    behind: Vec<(u64, u32)>,
}

impl Session {
    /// Answers a management request that ended several tasks.
    pub(super) fn answer_behind_fence(&mut self, request: TaskId, response: TaskResponse, then: Then) {
        let others = self.links.iter().filter(|link| !link.connection.awaits(request));
        let behind: Vec<(u64, u32)> = others.map(|link| (link.id, link.connection.fence())).collect();
        self.fenced.push(Fenced { request, response, then, behind });
        self.finish_fenced();
    }

    /// Sends what has nothing to wait for any more, and asks the others to acknowledge.
    pub(super) fn finish_fenced(&mut self) {
        if self.fenced.is_empty() {
            return;
        }
        for mut fenced in std::mem::take(&mut self.fenced) {
            fenced.behind.retain(|(id, fence)| {
                let link = self.links.iter_mut().find(|link| link.id == *id && !link.is_over());
                let Some(link) = link.filter(|link| !link.connection.is_past(*fence)) else { return false };
                // A ping that is on its way is not sent again.
                link.connection.ping();
                true
            });
            if fenced.behind.is_empty() {
                self.links.respond_task_management(fenced.request, fenced.response);
                self.follow(fenced.then);
            } else {
                self.fenced.push(fenced);
            }
        }
    }

    fn follow(&mut self, then: Then) {
        match then {
            Then::GoesOn => {}
            //= rfc7144#section-6.3(e): every connection of the session, at once, and nothing is kept of any.
            Then::Ends => self.dismiss_once(0, "the initiator reset its nexus"),
            Then::AllEnd => self.asks.push(Request::EndSessions),
        }
    }
}
