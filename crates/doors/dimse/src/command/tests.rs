#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn a_command_set_has_the_standards_bytes() {
    let bytes = Command::request(CommandField::C_ECHO_RQ, 7, "1.2.840.10008.1.1").encode();
    let mut expected = vec![0, 0, 0, 0, 4, 0, 0, 0, 56, 0, 0, 0];
    expected.extend_from_slice(&[0, 0, 2, 0, 18, 0, 0, 0]);
    expected.extend_from_slice(b"1.2.840.10008.1.1\0");
    expected.extend_from_slice(&[0, 0, 0, 1, 2, 0, 0, 0, 0x30, 0]);
    expected.extend_from_slice(&[0, 0, 0x10, 1, 2, 0, 0, 0, 7, 0]);
    expected.extend_from_slice(&[0, 0, 0, 8, 2, 0, 0, 0, 1, 1]);
    assert_eq!(bytes, expected);
}

#[test]
fn every_element_reads_back_in_ascending_order() {
    let command = Command {
        field: CommandField::C_MOVE_RSP,
        message_id: Some(1),
        message_id_responded_to: Some(2),
        sop_class_uid: Some("1.2".into()),
        sop_instance_uid: Some("1.2.3.4".into()),
        event_type_id: Some(2),
        action_type_id: Some(1),
        priority: Some(Priority::Low as u16),
        has_data_set: true,
        status: Some(Status::SUBOPERATIONS_WITH_FAILURES),
        offending_elements: vec![0x0010_0020, 0x0008_0052],
        error_comment: Some("why".into()),
        move_destination: Some("THERE".into()),
        move_originator_ae_title: Some("HERE".into()),
        move_originator_message_id: Some(3),
        sub_operations: Some(SubOperations { remaining: Some(1), completed: 2, failed: 3, warning: 4 }),
    };
    let bytes = command.encode();
    assert_eq!(Command::decode(&bytes), Ok(command));
    let mut rest = &bytes[..];
    let mut last = None;
    while !rest.is_empty() {
        let (element, length) = (u16::from_le_bytes([rest[2], rest[3]]), rest[4] as usize);
        assert!(last < Some(element), "{element:04x} out of order");
        assert!(length.is_multiple_of(2));
        last = Some(element);
        rest = &rest[8 + length..];
    }
}

#[test]
fn a_cut_or_foreign_command_set_is_an_error() {
    let bytes = Command::request(CommandField::C_ECHO_RQ, 7, "1.2.840.10008.1.1").encode();
    for cut in 0..bytes.len() {
        assert!(Command::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    assert_eq!(Command::decode(&[8, 0, 5, 0, 0, 0, 0, 0]), Err(CommandError::NotGroupZero));
    assert_eq!(Command::decode(&[0, 0, 2, 0, 255, 255, 255, 255]), Err(CommandError::WrongLength));
    assert_eq!(Command::decode(&[]), Err(CommandError::Missing(0x0100)));
}

#[test]
fn a_response_names_what_it_answers() {
    let mut request = Command::request(CommandField::C_STORE_RQ, 9, "1.2");
    request.sop_instance_uid = Some("not a UID".into());
    let response = request.response(Status::OUT_OF_RESOURCES);
    assert_eq!(response.field, CommandField::C_STORE_RSP);
    assert_eq!(response.message_id_responded_to, Some(9));
    assert_eq!(response.message_id, None);
    assert_eq!(response.sop_instance_uid.as_deref(), Some("not a UID"));
}

#[test]
fn an_error_comment_fits_its_vr() {
    let long = Command::new(CommandField::C_STORE_RSP).with_comment(&"é\\\n".repeat(40));
    assert_eq!(long.error_comment.unwrap(), "?".repeat(64));
}

#[test]
fn statuses_are_of_their_kind() {
    assert!(Status::SUCCESS.is_done() && !Status::SUCCESS.is_warning());
    assert!(Status::COERCION_OF_DATA_ELEMENTS.is_warning());
    assert!(Status(0xB007).is_done());
    assert!(!Status::OUT_OF_RESOURCES.is_done() && !Status::CANCEL.is_done() && !Status(0x0110).is_done());
    assert!(Status::PENDING.is_pending() && Status::PENDING_OPTIONAL_KEYS_UNSUPPORTED.is_pending());
    assert_eq!(format!("{:?}", Status::OUT_OF_RESOURCES), "A700H");
}

#[test]
fn an_action_is_asked_of_an_instance_and_answered_about_it() {
    let mut action = Command::request(CommandField::N_ACTION_RQ, 7, "1.2.840.10008.1.20.1");
    (action.sop_instance_uid, action.action_type_id) = (Some("1.2.840.10008.1.20.1.1".into()), Some(1));
    let has = |bytes: &[u8], element: u16| {
        let wanted = element.to_le_bytes();
        bytes.windows(4).any(|four| four == [0, 0, wanted[0], wanted[1]])
    };
    let (request, response) = (action.encode(), action.response(Status::SUCCESS).encode());
    assert!(has(&request, 0x0003) && has(&request, 0x1001) && has(&request, 0x1008));
    assert!(!has(&request, 0x0002) && !has(&request, 0x1000));
    assert!(has(&response, 0x0002) && has(&response, 0x1000) && !has(&response, 0x0003) && !has(&response, 0x1001));
    assert_eq!(Command::decode(&request), Ok(action));
}
