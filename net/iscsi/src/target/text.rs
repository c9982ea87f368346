//! Text requests: SendTargets, and what may be negotiated after the login.
//!
//! A request is one exchange at a time: its text may come in several PDUs, and so may the answer.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::{Connection, Event, SendTargets, SessionType};
use crate::keys::{Stranger, stranger};
use crate::pdu::{Header, NO_TAG, RejectReason, flag, opcode};
use crate::protocol::{Body, INLINE_MAX, TaskId};
use crate::text::{self, Pairs};

/// Bytes of a request's text that are kept.
const TEXT_MAX: usize = 16 << 10;

/// What a text request is in the middle of.
#[derive(Debug, Default)]
pub(super) enum Exchange {
    /// Nothing.
    #[default]
    None,
    /// The request goes on in the next PDU; its tag, and what there is of it.
    Asking(u32, Vec<u8>),
    /// The answer goes on; its tag, and the rest.
    Answering(u32, Vec<u8>),
}

/// What one key of a request comes to.
enum KeyAnswer {
    /// The request is rejected for it.
    Refused,
    /// It is understood, and wants no answer.
    Silent,
    /// It is understood.
    Known(&'static str),
    /// Nobody knows it.
    Strange,
}

impl Connection {
    pub(super) fn on_text(&mut self, header: &Header, data: Vec<u8>) {
        let exchange = core::mem::take(&mut self.text);
        let text = match exchange {
            //= rfc7143#section-11.10.4: a tag of no transfer begins a new exchange and ends the old one.
            _ if header.ttt() == NO_TAG => data,
            Exchange::Answering(ttt, rest) if ttt == header.ttt() && data.is_empty() => {
                return self.send_text(header.itt(), rest);
            }
            Exchange::Asking(ttt, mut begun) if ttt == header.ttt() => {
                begun.extend_from_slice(&data);
                begun
            }
            _ => return self.reject(header, RejectReason::Protocol),
        };
        if text.len() > TEXT_MAX {
            return self.reject(header, RejectReason::OutOfResources);
        }
        if header.has(flag::CONTINUE) {
            return self.ask_for_more(header, text);
        }
        match text::parse(&text) {
            Ok(pairs) => self.answer_text(header, &pairs),
            Err(_) => self.reject(header, RejectReason::Protocol),
        }
    }

    //= rfc7143#section-6.1(a)
    /// The text goes on in the next PDU: an empty answer asks for it.
    fn ask_for_more(&mut self, header: &Header, text: Vec<u8>) {
        if header.has(flag::FINAL) {
            return self.reject(header, RejectReason::Protocol);
        }
        //= rfc7143#section-6.2(c): an empty answer with a tag asks for the rest.
        let ttt = self.new_ttt();
        self.text = Exchange::Asking(ttt, text);
        let answer = Header::new(opcode::TEXT_RESPONSE, 0).with_itt(header.itt()).with_ttt(ttt);
        self.send(answer, Body::None);
    }

    //= rfc7143#section-11.10: each key of a request is answered, or the request is rejected.
    fn answer_text(&mut self, header: &Header, pairs: &Pairs) {
        let (asked, others): (Vec<_>, Vec<_>) = pairs.iter().partition(|(key, _)| key == "SendTargets");
        let which = match asked[..] {
            [] => None,
            [(_, value)] => match self.which(value) {
                Some(which) => Some(which),
                None => return self.reject(header, RejectReason::Protocol),
            },
            //= rfc7143#section-6.4: a key that comes twice is an error of protocol.
            _ => return self.reject(header, RejectReason::Protocol),
        };
        let mut text = Vec::new();
        // An answer of nothing but NotUnderstood would read as a success.
        let mut understood = pairs.is_empty() || which.is_some();
        for (key, value) in others {
            match self.answer_key(key, value) {
                //= rfc7143#section-7.12: a negotiation that fails in full feature phase changes nothing.
                KeyAnswer::Refused => return self.reject(header, RejectReason::Protocol),
                KeyAnswer::Silent => understood = true,
                KeyAnswer::Known(answer) => {
                    understood = true;
                    text::emit(&mut text, key, answer);
                }
                KeyAnswer::Strange => text::emit(&mut text, key, "NotUnderstood"),
            }
        }
        //= rfc7143#section-13.12: it may be declared again in full feature phase.
        if let Some(length) = self.declares.take() {
            text::emit(&mut text, "MaxRecvDataSegmentLength", &length.to_string());
            understood = true;
        }
        let Some(which) = which else {
            return match understood {
                true => self.send_text(header.itt(), text),
                false => self.reject(header, RejectReason::Protocol),
            };
        };
        let request = TaskId(header.itt());
        self.requests.push(request);
        if !text.is_empty() {
            self.beside.push((request, text));
        }
        self.tell(Event::SendTargets { request, which });
    }

    /// What SendTargets asks for; `None` for what is no name.
    //= rfc7143#appendix-C(b): all targets in discovery, or one that is named; nothing, for the one of the session.
    fn which(&self, value: &str) -> Option<SendTargets> {
        match value {
            //= rfc7143#appendix-C(a): in a normal session All is the session's own target: it has no business with others.
            "All" if self.session_type == SessionType::Normal => Some(SendTargets::Session),
            "All" => Some(SendTargets::All),
            "" => Some(SendTargets::Session),
            name if is_name(name) => Some(SendTargets::Named(name.to_string())),
            _ => None,
        }
    }

    fn answer_key(&mut self, key: &str, value: &str) -> KeyAnswer {
        match key {
            "MaxRecvDataSegmentLength" if !self.parameters.redeclare(value) => KeyAnswer::Refused,
            "MaxRecvDataSegmentLength" | "InitiatorAlias" => KeyAnswer::Silent,
            //= rfc7143#section-13.22: nobody else's extensions are known.
            key if key.starts_with("X-") => KeyAnswer::Known("NotUnderstood"),
            key => match stranger(key) {
                Stranger::Silent => KeyAnswer::Silent,
                //= rfc7143#section-13: keys of the login are settled.
                Stranger::Misplaced => KeyAnswer::Known("Reject"),
                Stranger::Unknown => KeyAnswer::Strange,
            },
        }
    }

    /// Takes what is answered beside the targets that a request asks for.
    pub(super) fn take_beside(&mut self, request: TaskId) -> Vec<u8> {
        let at = self.beside.iter().position(|(of, _)| *of == request);
        at.map(|at| self.beside.swap_remove(at).1).unwrap_or_default()
    }

    pub(super) fn send_text(&mut self, itt: u32, mut text: Vec<u8>) {
        let limit = INLINE_MAX.min(self.parameters.max_send_data_segment_length as usize);
        let mut header = Header::new(opcode::TEXT_RESPONSE, flag::FINAL).with_itt(itt).with_ttt(NO_TAG);
        if text.len() > limit {
            let rest = text.split_off(limit);
            let ttt = self.new_ttt();
            header = Header::new(opcode::TEXT_RESPONSE, flag::CONTINUE).with_itt(itt).with_ttt(ttt);
            self.text = Exchange::Answering(ttt, rest);
        }
        let body = if text.is_empty() { Body::None } else { Body::Inline(text) };
        self.send(header, body);
    }
}

/// True for what may be an iSCSI name (RFC 7143 section 4.2.7).
fn is_name(name: &str) -> bool {
    let form = ["iqn.", "eui.", "naa."]
        .iter()
        .any(|form| name.get(..form.len()).is_some_and(|start| start.eq_ignore_ascii_case(form)));
    form && name.len() <= 223
}
