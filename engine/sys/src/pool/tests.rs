use super::*;

#[test]
fn a_buffer_is_aligned_and_of_the_asked_length() {
    let pool = Pool::for_tests();
    for len in [1, 512, 4096, 4097, 65536, 65537, BUF_LEN_MAX] {
        let buf = pool.alloc(len).expect("fresh pool");
        assert_eq!(buf.len(), len);
        assert_eq!(buf.as_ptr() as usize % FRAME_ALIGN, 0);
    }
}

#[test]
fn exhaustion_is_none_and_a_returned_frame_serves_again() {
    let pool = Pool::new(PoolConfig { frames: [1, 1, 1], pages: Pages::Ordinary }).expect("memory");
    let held: Vec<_> = (0..3).map(|_| pool.alloc(512).expect("larger classes serve too")).collect();
    assert!(pool.alloc(512).is_none());
    drop(held);
    assert!(pool.alloc(BUF_LEN_MAX).is_some());
    assert_eq!(pool.stats().map(|class| class.free), [1, 1, 1]);
}

#[test]
fn slices_share_the_frame_and_keep_it() {
    let pool = Pool::new(PoolConfig { frames: [1, 0, 0], pages: Pages::Ordinary }).expect("memory");
    let mut buf = pool.alloc(16).expect("fresh pool");
    buf.copy_from_slice(b"0123456789abcdef");
    let whole = buf.freeze();
    let part = whole.slice(4..8).slice(1..3);
    drop(whole);
    assert_eq!(&part[..], b"56");
    assert!(pool.alloc(1).is_none(), "the slice holds the frame");
    drop(part);
    assert!(pool.alloc(1).is_some());
}

#[test]
fn only_the_last_view_may_write() {
    let pool = Pool::for_tests();
    let first = pool.alloc(8).expect("fresh pool").freeze();
    let second = first.clone();
    let first = first.try_unique().expect_err("shared");
    drop(second);
    let mut unique = first.try_unique().expect("the last view");
    unique.fill(7);
    assert_eq!(&unique[..], [7; 8]);
}

#[test]
fn frames_do_not_overlap() {
    let pool = Pool::new(PoolConfig { frames: [3, 3, 3], pages: Pages::Ordinary }).expect("memory");
    let mut bufs = Vec::new();
    for size in FRAME_SIZES {
        for _ in 0..3 {
            bufs.push(pool.alloc(size).expect("one frame each"));
        }
    }
    for (index, buf) in bufs.iter_mut().enumerate() {
        buf.fill(index as u8);
    }
    for (index, buf) in bufs.iter().enumerate() {
        assert!(buf.iter().all(|byte| usize::from(*byte) == index));
    }
}

#[test]
fn handles_move_between_threads() {
    let pool = Pool::for_tests();
    let threads: Vec<_> = (0..4u8)
        .map(|id| {
            let pool = pool.clone();
            std::thread::spawn(move || {
                for _ in 0..2_000 {
                    if let Some(mut buf) = pool.alloc(4096) {
                        buf.fill(id);
                        let shared = buf.freeze();
                        let other = shared.clone();
                        assert!(other.iter().all(|byte| *byte == id));
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no assertion failed");
    }
    assert_eq!(pool.stats().map(|class| class.free), [512, 64, 16]);
}
