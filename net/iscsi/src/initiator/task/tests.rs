//! R2Ts, and data that come in any order, again, or not at all.

use super::*;
use crate::keys::Choice;

fn data_in(data_sn: u32, offset: u32, len: usize) -> Header {
    Header::new(opcode::DATA_IN, 0).with_data_sn(data_sn).with_buffer_offset(offset).with_data_len(len)
}

fn read(len: u32, parameters: &SessionParameters) -> Task {
    let command = Command { lun: 0, cdb: [0; 16], direction: Direction::Read, len, attribute: 1 };
    Task::open(TaskId(1), &command, 1, parameters).0
}

#[test]
fn data_come_in_any_order_where_that_was_agreed_on() {
    let strict = SessionParameters::default();
    let loose = SessionParameters { data_pdu_in_order: Choice::No, ..SessionParameters::default() };
    let parts = [data_in(0, 512, 512), data_in(1, 0, 512)];
    assert_eq!(read(1024, &strict).on_data_in(&parts[0], &strict), Err(()));
    let mut task = read(1024, &loose);
    for part in parts {
        assert_eq!(task.on_data_in(&part, &loose), Ok(Piece::Wanted));
        assert!(!task.is_whole(0));
        task.on_data_in_end(&part);
    }
    assert!(task.is_whole(0));
    assert_eq!(task.on_data_in(&data_in(2, 0, 512), &loose), Err(()), "twice");
}

#[test]
fn each_r2t_comes_once_and_not_too_many_at_a_time() {
    let r2t = |number: u32, offset: u32, len: u32| {
        Header::new(opcode::R2T, flag::FINAL)
            .with_data_sn(number)
            .with_buffer_offset(offset)
            .with_residual(len)
    };
    let agreed = SessionParameters {
        immediate_data: Choice::Yes,
        initial_r2t: Choice::Yes,
        first_burst_length: 512,
        max_outstanding_r2t: 2,
        ..SessionParameters::default()
    };
    let command = Command { lun: 0, cdb: [0; 16], direction: Direction::Write, len: 4096, attribute: 1 };
    let write = |parameters| Task::open(TaskId(1), &command, 1, parameters).0;
    let mut task = write(&agreed);
    let mut ask =
        |header: Header, outstanding| task.on_r2t(TaskId(1), &header, outstanding, &agreed).map(|_| ());
    assert_eq!(ask(r2t(1, 512, 512), 0), Err(Unfit::Number), "the first one is missing");
    assert_eq!(ask(r2t(0, 0, 512), 0), Err(Unfit::Twice), "it was sent with the command");
    assert_eq!(ask(r2t(0, 512, 512), 0), Ok(()));
    assert_eq!(ask(r2t(0, 512, 512), 1), Err(Unfit::Number), "again");
    assert_eq!(ask(r2t(1, 1024, 512), 2), Err(Unfit::TooMany));
    assert_eq!(ask(r2t(1, 4096, 512), 1), Err(Unfit::Beyond));
    assert_eq!(ask(r2t(1, 1024, 512), 1), Ok(()));
    // Where data are recovered they may be asked for again, and an R2T may have been lost with its connection.
    let recovers = SessionParameters { error_recovery_level: 1, ..agreed };
    let mut task = write(&recovers);
    let mut ask = |header: Header| task.on_r2t(TaskId(1), &header, 0, &recovers).map(|_| ());
    assert_eq!((ask(r2t(0, 512, 512)), ask(r2t(0, 512, 512))), (Ok(()), Ok(())));
    assert_eq!(ask(r2t(1, 512, 512)), Ok(()), "with a number of its own");
    assert_eq!(ask(r2t(3, 1024, 512)), Ok(()));
}

#[test]
fn damaged_data_come_again_once() {
    let parameters = SessionParameters { error_recovery_level: 1, ..SessionParameters::default() };
    let mut task = read(1024, &parameters);
    let (first, second) =
        (data_in(0, 0, 512), data_in(1, 512, 512).with_flags(flag::ACKNOWLEDGE).with_ttt(9));
    assert_eq!(task.on_data_in(&first, &parameters), Ok(Piece::Wanted));
    task.on_damaged(&first).expect("once");
    assert_eq!(task.on_data_in(&second, &parameters), Ok(Piece::Wanted));
    task.on_data_in_end(&second);
    assert!(task.is_damaged() && task.take_acknowledgement().is_none());
    assert_eq!(task.on_data_in(&second, &parameters), Ok(Piece::Repeated));
    assert_eq!(task.on_data_in(&first, &parameters), Ok(Piece::Wanted));
    task.on_data_in_end(&first);
    assert_eq!(task.take_acknowledgement(), Some((9, 2)));
    assert!(task.is_whole(0) && !task.is_damaged());
}
