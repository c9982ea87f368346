//! Messages between reactors, and from the control plane to a reactor: a bounded lock-free queue and a wake-up.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use engine_sys::Waker;

/// Makes a mailbox for the reactor that `waker` wakes.
pub fn mailbox<M: Send>(capacity: usize, waker: Waker) -> (Sender<M>, Receiver<M>) {
    let queue = Arc::new(ArrayQueue::new(capacity));
    (Sender { queue: queue.clone(), waker }, Receiver { queue })
}

/// The sending end; clones share the queue.
#[derive(Debug)]
pub struct Sender<M> {
    queue: Arc<ArrayQueue<M>>,
    waker: Waker,
}

impl<M> Clone for Sender<M> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), waker: self.waker.clone() }
    }
}

impl<M: Send> Sender<M> {
    /// Puts a message in and wakes the reactor if it sleeps.
    ///
    /// # Errors
    /// Gives the message back when the mailbox is full.
    pub fn send(&self, message: M) -> Result<(), M> {
        self.queue.push(message)?;
        self.waker.wake();
        Ok(())
    }
}

/// The receiving end, on the reactor.
#[derive(Debug)]
pub struct Receiver<M> {
    queue: Arc<ArrayQueue<M>>,
}

impl<M: Send> Receiver<M> {
    /// The oldest message.
    pub fn receive(&self) -> Option<M> {
        self.queue.pop()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
