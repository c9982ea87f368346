//! What becomes of write data that come right, wrong, late, or not at all.

use super::*;

fn data_out(ttt: u32, data_sn: u32, offset: u32, len: usize, flags: u8) -> Header {
    Header::new(opcode::DATA_OUT, flags)
        .with_ttt(ttt)
        .with_data_sn(data_sn)
        .with_buffer_offset(offset)
        .with_data_len(len)
}

#[test]
fn a_solicited_burst_that_ends_short_fails_whatever_the_others_brought() {
    let parameters =
        SessionParameters { max_burst_length: 512, max_outstanding_r2t: 2, ..SessionParameters::default() };
    let command = Header::new(opcode::SCSI_COMMAND, flag::WRITE | flag::FINAL).with_edtl(1024);
    let mut task = Task::open(&command, &parameters).expect("a write");
    task.on_immediate_end(&command);
    task.want(1024);
    for ttt in [1, 2] {
        task.next_r2t(ttt, &parameters).expect("two bursts are open at once");
    }
    let second = data_out(2, 0, 512, 512, flag::FINAL);
    task.on_data_out(&second, &parameters).expect("in order");
    task.on_data_end(&second, &parameters).expect("whole");
    let first = data_out(1, 0, 0, 256, flag::FINAL);
    task.on_data_out(&first, &parameters).expect("in order");
    task.on_data_end(&first, &parameters).expect_err("256 bytes never come");
    assert!(task.fail());
    assert!(!task.take_complete() && task.next_r2t(3, &parameters).is_none());
}

/// As it is by [`Task::open`], with so much of it in the command.
fn first_burst(expected_len: u32, immediate: usize) -> Result<Task, ()> {
    let parameters = SessionParameters {
        initial_r2t: crate::keys::Choice::No,
        first_burst_length: 1024,
        ..SessionParameters::default()
    };
    let command =
        Header::new(opcode::SCSI_COMMAND, flag::WRITE).with_edtl(expected_len).with_data_len(immediate);
    let mut task = Task::open(&command, &parameters).expect("a write");
    task.on_immediate_end(&command);
    let begun = u32::try_from(immediate).expect("short");
    let last = data_out(NO_TAG, 0, begun, 256, flag::FINAL);
    task.on_data_out(&last, &parameters).expect("in order");
    task.on_data_end(&last, &parameters).map(|()| task)
}

#[test]
fn a_first_burst_is_whole_where_there_is_more_than_that() {
    first_burst(2048, 512).expect_err("768 of 1024 bytes");
    first_burst(1025, 0).expect_err("one byte more than a first burst");
    first_burst(2048, 768).expect("1024 bytes");
    let mut task = first_burst(1024, 0).expect("what fits into one may come in parts");
    task.want(1024);
    let rest = task.next_r2t(1, &SessionParameters::default()).expect("the rest is asked for");
    assert_eq!((rest.buffer_offset(), rest.residual()), (256, 768));
}

#[test]
fn what_was_lost_is_asked_for_again_and_nothing_else() {
    let parameters =
        SessionParameters { max_burst_length: 1024, error_recovery_level: 1, ..SessionParameters::default() };
    let command = Header::new(opcode::SCSI_COMMAND, flag::WRITE | flag::FINAL).with_edtl(1024);
    let mut task = Task::open(&command, &parameters).expect("a write");
    task.on_immediate_end(&command);
    task.want(1024);
    task.next_r2t(1, &parameters).expect("all of it");
    assert_eq!(task.r2ts_again(0, 0).expect("one").len(), 1);
    assert!(task.r2ts_again(1, 1).is_none());
    let lost = data_out(1, 0, 0, 512, 0);
    task.on_data_out(&lost, &parameters).expect("in order");
    task.on_data_lost(&lost, &parameters).expect("recovered");
    let right = data_out(1, 1, 512, 512, flag::FINAL);
    task.on_data_out(&right, &parameters).expect("in order");
    task.on_data_end(&right, &parameters).expect("recovered");
    assert!(!task.take_complete());
    let again = task.next_r2t(2, &parameters).expect("what was lost");
    assert_eq!((again.data_sn(), again.buffer_offset(), again.residual()), (1, 0, 512));
    let answer = data_out(2, 0, 0, 512, flag::FINAL);
    task.on_data_out(&answer, &parameters).expect("in order");
    task.on_data_end(&answer, &parameters).expect("whole");
    assert!(task.take_complete());
}

#[test]
fn data_out_of_order_fill_a_burst_where_that_was_agreed_on() {
    let parameters = SessionParameters {
        data_pdu_in_order: crate::keys::Choice::No,
        max_burst_length: 1536,
        ..SessionParameters::default()
    };
    let command = Header::new(opcode::SCSI_COMMAND, flag::WRITE | flag::FINAL).with_edtl(1536);
    let mut task = Task::open(&command, &parameters).expect("a write");
    task.want(1536);
    task.next_r2t(1, &parameters).expect("all of it");
    for (data_sn, offset, flags) in [(0, 1024, 0), (1, 0, 0), (2, 512, flag::FINAL)] {
        let part = data_out(1, data_sn, offset, 512, flags);
        assert_eq!(task.on_data_out(&data_out(1, data_sn, 1536, 512, 0), &parameters), Err(Unfit::Wrong));
        task.on_data_out(&part, &parameters).expect("inside");
        task.on_data_end(&part, &parameters).expect("no gap");
    }
    assert!(task.take_complete());
}

#[test]
fn data_that_were_given_up_are_waited_for_and_not_asked_for() {
    let parameters = SessionParameters { max_burst_length: 1024, ..SessionParameters::default() };
    let command = Header::new(opcode::SCSI_COMMAND, flag::WRITE | flag::FINAL).with_edtl(2048);
    let mut task = Task::open(&command, &parameters).expect("a write");
    task.on_immediate_end(&command);
    task.want(2048);
    task.next_r2t(1, &parameters).expect("half of it");
    assert!(task.give_up() && !task.take_given_up(), "a sequence is under way");
    for (data_sn, offset, flags) in [(0, 0, 0), (1, 512, flag::FINAL)] {
        assert!(!task.take_given_up());
        let part = data_out(1, data_sn, offset, 512, flags);
        task.on_data_out(&part, &parameters).expect("in order");
        task.on_data_end(&part, &parameters).expect("whole");
    }
    assert!(task.next_r2t(2, &parameters).is_none() && !task.take_complete());
    assert!(task.take_given_up() && !task.take_given_up(), "the owner is told once");
    assert!(!task.give_up(), "nothing is left to give up");
}

#[test]
fn what_was_lost_is_asked_for_from_its_beginning() {
    let parameters = SessionParameters {
        initial_r2t: crate::keys::Choice::No,
        first_burst_length: 2048,
        max_outstanding_r2t: 4,
        error_recovery_level: 1,
        ..SessionParameters::default()
    };
    let command = Header::new(opcode::SCSI_COMMAND, flag::WRITE).with_edtl(4096);
    let mut task = Task::open(&command, &parameters).expect("a write");
    for (number, flags) in [0, 0, 0, flag::FINAL].into_iter().enumerate() {
        let number = u32::try_from(number).expect("few");
        let data = data_out(NO_TAG, number, number * 512, 512, flags);
        task.on_data_out(&data, &parameters).expect("in order");
        match number {
            0 | 2 => task.on_data_lost(&data, &parameters).expect("it comes again"),
            _ => task.on_data_end(&data, &parameters).expect("whole"),
        }
    }
    task.want(4096);
    let r2ts: Vec<_> = (1..5).map_while(|ttt| task.next_r2t(ttt, &parameters)).collect();
    let ranges: Vec<_> = r2ts.iter().map(|r2t| (r2t.buffer_offset(), r2t.residual())).collect();
    assert_eq!(ranges, [(0, 512), (1024, 512), (2048, 2048)]);
}

/// The header of a Data-Out came before the R2T that it names, and its data behind it.
#[test]
fn data_whose_header_fitted_nothing_are_not_counted() {
    let parameters = SessionParameters::default();
    let command = Header::new(opcode::SCSI_COMMAND, flag::WRITE | flag::FINAL).with_edtl(1024);
    let mut task = Task::open(&command, &parameters).expect("a write");
    task.on_immediate_end(&command);
    let beyond = [data_out(1, 0, u32::MAX, 8, flag::FINAL), data_out(1, 0, 1024, 8, 0)];
    for header in &beyond {
        task.on_data_out(header, &parameters).expect_err("nothing was asked for");
    }
    task.want(1024);
    task.next_r2t(1, &parameters).expect("now it is");
    for header in &beyond {
        task.on_data_end(header, &parameters).expect("they are nobody's");
    }
    assert!(!task.take_complete());
    let whole = data_out(1, 0, 0, 1024, flag::FINAL);
    task.on_data_out(&whole, &parameters).expect("what was asked for");
    task.on_data_end(&whole, &parameters).expect("whole");
    assert!(task.take_complete());
}
