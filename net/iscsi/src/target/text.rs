//! Text requests: SendTargets, and what may be negotiated after the login.
//!
//! A request is one exchange at a time: its text may come in several PDUs, and so may the answer.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::{Connection, Event, SendTargets, SessionType};
use crate::pdu::{Header, NO_TAG, RejectReason, flag, opcode};
use crate::protocol::{Body, TaskId};
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

    /// The text goes on in the next PDU: an empty answer asks for it.
    fn ask_for_more(&mut self, header: &Header, text: Vec<u8>) {
        if header.has(flag::FINAL) {
            return self.reject(header, RejectReason::Protocol);
        }
        let ttt = self.new_ttt();
        self.text = Exchange::Asking(ttt, text);
        let answer = Header::new(opcode::TEXT_RESPONSE, 0).with_itt(header.itt()).with_ttt(ttt);
        self.send(answer, Body::None);
    }

    //= rfc7143#section-11.10: each key of a request is answered, or the request is rejected.
    fn answer_text(&mut self, header: &Header, pairs: &Pairs) {
        let asked = pairs.iter().find(|(key, _)| key == "SendTargets");
        if let Some((_, value)) = asked {
            let which = match value.as_str() {
                "All" => SendTargets::All,
                "" => SendTargets::Session,
                name if is_name(name) => SendTargets::Named(name.to_string()),
                _ => return self.reject(header, RejectReason::Protocol),
            };
            //= rfc7143#appendix-C: in a normal session All is the session's own target: it has no business with others.
            let which = match which {
                SendTargets::All if self.session_type == SessionType::Normal => SendTargets::Session,
                which => which,
            };
            let request = TaskId(header.itt());
            self.requests.push(request);
            return self.tell(Event::SendTargets { request, which });
        }
        let mut text = Vec::new();
        let mut understood = pairs.is_empty();
        for (key, value) in pairs {
            let answer = match key.as_str() {
                "MaxRecvDataSegmentLength" => {
                    if !self.parameters.redeclare(value) {
                        return self.reject(header, RejectReason::Protocol);
                    }
                    understood = true;
                    continue;
                }
                "InitiatorAlias" => {
                    understood = true;
                    continue;
                }
                key if key.starts_with("X-") || key.starts_with("X#") => {
                    understood = true;
                    "NotUnderstood"
                }
                // Keys of the login are settled.
                key if crate::keys::is_known(key) => {
                    understood = true;
                    "Reject"
                }
                _ => "NotUnderstood",
            };
            text::emit(&mut text, key, answer);
        }
        // An answer of nothing but NotUnderstood would read as a success.
        if understood {
            self.send_text(header.itt(), text);
        } else {
            self.reject(header, RejectReason::Protocol);
        }
    }

    pub(super) fn send_text(&mut self, itt: u32, mut text: Vec<u8>) {
        let limit = self.parameters.max_send_data_segment_length as usize;
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
