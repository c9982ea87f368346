//! Which transport an address is reached by: a link that has it in one of its networks, else kernel TCP.
//!
//! Owner: one reactor; clones share the table. Each connection is looked up anew, so that what reconnects finds a link that was
//! made meanwhile.

use core::net::{IpAddr, SocketAddr};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use crate::smol::SmolNetwork;
use crate::stream::{Listener, Network, Stream};

/// See the module.
#[derive(Clone)]
pub struct Routes {
    links: Rc<RefCell<BTreeMap<String, SmolNetwork>>>,
    otherwise: Rc<dyn Network>,
}

impl Routes {
    /// No links: everything goes over `otherwise`.
    pub fn new(otherwise: impl Network + 'static) -> Self {
        Self { links: Rc::default(), otherwise: Rc::new(otherwise) }
    }

    /// From now on the link is used.
    pub fn add(&self, name: &str, link: SmolNetwork) {
        self.links.borrow_mut().insert(name.to_owned(), link);
    }

    /// The link is used no more for what begins from now on.
    pub fn remove(&self, name: &str) {
        self.links.borrow_mut().remove(name);
    }

    fn find(&self, wanted: impl Fn(&SmolNetwork) -> bool) -> Option<SmolNetwork> {
        self.links.borrow().values().find(|link| wanted(link)).cloned()
    }

    /// The link that has `address`.
    fn owner(&self, address: IpAddr) -> Option<SmolNetwork> {
        self.find(|link| link.has_address(address))
    }

    /// The link that `address` is reached by.
    fn way_to(&self, address: IpAddr) -> Option<SmolNetwork> {
        self.find(|link| link.reaches(address))
    }
}

impl Network for Routes {
    fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        match self.owner(address.ip()) {
            Some(link) => link.listen(address),
            None => self.otherwise.listen(address),
        }
    }

    fn connect(&self, address: SocketAddr) -> Box<dyn Stream> {
        match self.way_to(address.ip()) {
            Some(link) => link.connect(address),
            None => self.otherwise.connect(address),
        }
    }
}
