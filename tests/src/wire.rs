//! A wire between two processes that can be reset, or cut and healed: every byte of their connections goes through here.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::SockRef;

use crate::node::pause;

#[derive(Debug)]
struct Shared {
    far: SocketAddr,
    open: Mutex<Vec<Arc<TcpStream>>>,
    cut: AtomicBool,
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Vec<Arc<TcpStream>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module. Its threads end with the test's process.
#[derive(Debug)]
pub struct Wire {
    shared: Arc<Shared>,
    near: SocketAddr,
}

impl Wire {
    /// A wire to `far`.
    ///
    /// # Panics
    /// When there is no free port.
    pub fn to(far: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let near = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared { far, open: Mutex::default(), cut: AtomicBool::new(false) });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                // Nobody is there: the near end sees the connection end.
                let Ok(far) = TcpStream::connect(accepting.far) else { continue };
                let [near, far] = [near, far].map(Arc::new);
                accepting.open().extend([near.clone(), far.clone()]);
                for (from, to) in [(near.clone(), far.clone()), (far, near)] {
                    let shared = accepting.clone();
                    std::thread::spawn(move || pump(&shared, &from, &to));
                }
            }
        });
        Self { shared, near }
    }

    /// Where to connect instead of the far end.
    pub fn near(&self) -> SocketAddr {
        self.near
    }

    /// Every connection ends by a TCP reset at both ends; says how many ends there were.
    ///
    /// # Panics
    /// When the system refuses the option.
    pub fn reset(&self) -> usize {
        self.reset_ends(usize::MAX)
    }

    /// The newest connection ends so.
    ///
    /// # Panics
    /// When the system refuses the option.
    pub fn reset_newest(&self) {
        self.reset_ends(2);
    }

    fn reset_ends(&self, most: usize) -> usize {
        let mut open = self.shared.open();
        let ends = open.len().min(most);
        let from = open.len() - ends;
        for stream in open.drain(from..) {
            SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
            // Wakes the threads that read; the last of them closes, and that is the reset.
            let _ = stream.shutdown(Shutdown::Read);
        }
        ends
    }

    /// Bytes stop moving; nobody is told.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
    }

    /// They move again, those that waited first.
    pub fn heal(&self) {
        self.shared.cut.store(false, Ordering::SeqCst);
    }
}

fn pump(shared: &Shared, mut from: &TcpStream, mut to: &TcpStream) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        while shared.cut.load(Ordering::SeqCst) {
            pause(Duration::from_millis(1));
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    // A connection that was reset says nothing more; one that ended does.
    let lingers = SockRef::from(to).linger().ok().flatten();
    if lingers.is_none() {
        let _ = to.shutdown(Shutdown::Write);
    }
}
