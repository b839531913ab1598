//! What lies between two sites: connections of one direction, which are passed on, and what networks do to them.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    runtime::Runtime,
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

/// Bytes of one piece, and pieces that are under way at most.
const PIECE_BYTES: usize = 64 << 10;
const PIECES_MAX: usize = 16;

/// What becomes of connections now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Faults {
    /// New connections end at once.
    refused: bool,
    /// Bytes to the called site are held back; connections stay open.
    there_held: bool,
    /// Bytes from the called site are held back.
    back_held: bool,
    /// Each piece comes so much later, in both directions.
    delay: Duration,
    /// Connections that are of an older round than this end.
    round: u64,
}

struct Shared {
    to: Mutex<Option<SocketAddr>>,
    faults: watch::Sender<Faults>,
    /// Bytes passed on to the called site.
    passed: AtomicU64,
    /// When so many bytes were passed on, what follows to the called site is held back.
    hold_at: AtomicU64,
    /// When so many bytes were passed on, one bit is flipped.
    flip_at: AtomicU64,
}

/// All that one site sends to another, and its answers. It ends when dropped.
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl Link {
    /// One that leads nowhere yet.
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (passed, hold_at, flip_at) = (AtomicU64::new(0), AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX));
        let faults = watch::Sender::new(Faults::default());
        let shared = Arc::new(Shared { to: Mutex::default(), faults, passed, hold_at, flip_at });
        let serving = shared.clone();
        runtime.spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let shared = serving.clone();
                // An error is a connection that ended, which is what happens here.
                tokio::spawn(async move { drop(shared.serve(caller).await) });
            }
        });
        Self { address, shared, runtime: Some(runtime) }
    }

    /// Where the calling site calls.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it leads from now on.
    pub fn lead_to(&self, address: Option<SocketAddr>) {
        *self.shared.to.lock().unwrap() = address;
    }

    fn set(&self, change: impl FnOnce(&mut Faults)) {
        self.shared.faults.send_modify(change);
    }

    /// Ends all connections, and new ones at once.
    pub fn cut(&self) {
        self.set(|faults| (faults.refused, faults.round) = (true, faults.round + 1));
    }

    /// Ends all connections, as a host does that knows nothing of them. New ones are taken.
    pub fn reset(&self) {
        self.set(|faults| faults.round += 1);
    }

    /// Holds back everything, in both directions.
    pub fn stall(&self) {
        self.set(|faults| (faults.there_held, faults.back_held) = (true, true));
    }

    /// Holds back what goes to the called site; its answers come.
    pub fn hold_requests(&self) {
        self.set(|faults| faults.there_held = true);
    }

    /// Holds back what comes from the called site; it hears everything.
    pub fn hold_answers(&self) {
        self.set(|faults| faults.back_held = true);
    }

    /// Lets so many more bytes get there, and holds back the rest.
    pub fn hold_requests_after(&self, bytes: u64) {
        self.shared.hold_at.store(self.passed() + bytes, Ordering::SeqCst);
    }

    /// Each piece comes so much later, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.set(|faults| faults.delay = delay);
    }

    /// Flips one bit once so many more bytes got there.
    pub fn flip_after(&self, bytes: u64) {
        self.shared.flip_at.store(self.passed() + bytes, Ordering::SeqCst);
    }

    /// Whether the bit that was to be flipped was.
    pub fn has_flipped(&self) -> bool {
        self.shared.flip_at.load(Ordering::SeqCst) == u64::MAX
    }

    /// Whether what goes to the called site is held back.
    pub fn is_held(&self) -> bool {
        self.shared.faults.borrow().there_held
    }

    /// All is well again; what was held back comes.
    pub fn heal(&self) {
        self.shared.hold_at.store(u64::MAX, Ordering::SeqCst);
        self.set(|faults| *faults = Faults { round: faults.round, ..Faults::default() });
    }

    /// Bytes that were passed on to the called site.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::SeqCst)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.runtime.take().expect("it is taken once").shutdown_background();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

impl Shared {
    async fn serve(self: Arc<Self>, mut caller: TcpStream) -> io::Result<()> {
        let mut faults = self.faults.subscribe();
        let round = faults.borrow_and_update().round;
        let to = *self.to.lock().unwrap();
        let Some(to) = to.filter(|_| !faults.borrow().refused) else { return Ok(()) };
        let mut called = TcpStream::connect(to).await?;
        for end in [&caller, &called] {
            end.set_nodelay(true)?;
        }
        {
            let ((from_caller, to_caller), (from_called, to_called)) = (caller.split(), called.split());
            let there = self.pass(Way::There, from_caller, to_called);
            let back = self.pass(Way::Back, from_called, to_caller);
            tokio::select! {
                // A site that has said all may still be answered.
                ended = async { tokio::try_join!(there, back) } => return ended.map(|_| ()),
                _ = faults.wait_for(|faults| faults.round > round) => {}
            }
        }
        // What is underway is lost, and both ends are told so.
        caller.set_zero_linger()?;
        called.set_zero_linger()
    }

    async fn pass(&self, way: Way, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
        let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
        let take = async move {
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let length = from.read(&mut piece).await?;
                piece.truncate(length);
                let due = Instant::now() + self.faults.borrow().delay;
                if length == 0 || sender.send((due, piece)).await.is_err() {
                    return io::Result::Ok(());
                }
            }
        };
        let give = async move {
            while let Some((due, mut piece)) = pieces.recv().await {
                sleep_until(due).await;
                self.not_held(way).await;
                if way == Way::There {
                    self.harm(&mut piece);
                }
                to.write_all(&piece).await?;
            }
            to.shutdown().await
        };
        tokio::try_join!(take, give).map(|_| ())
    }

    async fn not_held(&self, way: Way) {
        let mut faults = self.faults.subscribe();
        let held = |faults: &Faults| if way == Way::There { faults.there_held } else { faults.back_held };
        // The sender is `self`: it can't be gone.
        drop(faults.wait_for(|faults| !held(faults)).await);
    }

    /// Counts a piece on its way there, and does to it, or to what follows, what is due.
    fn harm(&self, piece: &mut [u8]) {
        let before = self.passed.fetch_add(piece.len() as u64, Ordering::SeqCst);
        let after = before + piece.len() as u64;
        if self.hold_at.load(Ordering::SeqCst) <= after {
            self.hold_at.store(u64::MAX, Ordering::SeqCst);
            self.faults.send_modify(|faults| faults.there_held = true);
        }
        let flip_at = self.flip_at.load(Ordering::SeqCst);
        // In the middle of a piece of a large body, where it is neither the head of a frame nor of a message.
        if flip_at <= after && piece.len() == PIECE_BYTES {
            self.flip_at.store(u64::MAX, Ordering::SeqCst);
            piece[PIECE_BYTES / 2] ^= 1;
        }
    }
}
