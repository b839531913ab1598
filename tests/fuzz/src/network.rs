//! What peers send: PDUs, commands, multipart bodies, request heads.

use crate::bytes_of::{pieces, split_at_choice};
use bytes::{Bytes, BytesMut};
use cairn_dicomweb::fuzzing;
use cairn_dimse::{
    Command,
    pdu::{
        decode_associate_ac, decode_associate_rq, encode_associate_ac, encode_associate_rq,
        frame::{Expecting, Pdu, PduLimits, PduReader},
    },
};

/// Neighbouring fragments of one value become one: how many there are depends on how bytes arrive.
fn read<'a>(expecting: Expecting, bytes: impl Iterator<Item = &'a [u8]>) -> (Vec<Pdu>, bool) {
    let limits = PduLimits { associate_bytes_max: 8192, data_bytes_max: 4096 };
    let mut reader = PduReader::new(expecting, limits, 4096);
    let mut pdus = Vec::new();
    for piece in bytes {
        reader.buffer().extend_from_slice(piece);
        loop {
            match reader.next_pdu() {
                Ok(Some(Pdu::Fragment(next))) => {
                    if let Some(Pdu::Fragment(last)) = pdus.last_mut()
                        && !last.is_last
                        && (last.context_id, last.is_command) == (next.context_id, next.is_command)
                    {
                        let mut joined = BytesMut::from(&last.data[..]);
                        joined.extend_from_slice(&next.data);
                        (last.data, last.is_last) = (joined.freeze(), next.is_last);
                    } else {
                        pdus.push(Pdu::Fragment(next));
                    }
                }
                Ok(Some(pdu)) => pdus.push(pdu),
                Ok(None) => break,
                Err(_) => return (pdus, true),
            }
        }
    }
    (pdus, false)
}

/// PDUs are the same however the bytes arrive; associations written again read as the same.
pub(crate) fn pdu(data: &[u8]) {
    let Some(([expecting, split], data)) = split_at_choice(data) else { return };
    let expecting = match expecting % 3 {
        0 => Expecting::AssociateRq,
        1 => Expecting::AssociateAnswer,
        _ => Expecting::Established,
    };
    let whole = read(expecting, std::iter::once(data));
    assert_eq!(whole, read(expecting, pieces(data, split)), "wherever it is split");
    let body = |pdu: Bytes| pdu.slice(6..);
    for pdu in whole.0 {
        match pdu {
            Pdu::AssociateRq(request) => {
                let written = encode_associate_rq(&request);
                let again = decode_associate_rq(body(written.clone())).expect("what was written can be read");
                assert_eq!(encode_associate_rq(&again), written, "stable");
            }
            Pdu::AssociateAc(accept) => {
                let written = encode_associate_ac(&accept);
                let again = decode_associate_ac(body(written.clone())).expect("what was written can be read");
                assert_eq!(encode_associate_ac(&again), written, "stable");
            }
            _ => {}
        }
    }
}

/// A command that can be read is written and read as the same.
pub(crate) fn command(data: &[u8]) {
    let Ok(command) = Command::decode(data) else { return };
    let written = command.encode();
    let again = Command::decode(&written).expect("what was written can be read");
    assert_eq!(again.encode(), written, "stable");
}

/// Parts are the same however the body arrives.
pub(crate) fn multipart(data: &[u8]) {
    let Some(([split], data)) = split_at_choice(data) else { return };
    let whole = fuzzing::multipart(std::iter::once(data), "b");
    assert_eq!(whole, fuzzing::multipart(pieces(data, split), "b"), "wherever it is split");
    if let Some(parts) = whole {
        assert!(parts.iter().map(Vec::len).sum::<usize>() <= data.len());
    }
}

/// A request's head is read or refused; a range is within what there is.
pub(crate) fn http(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(3, '\n');
    let (target, accept, range) = (lines.next(), lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    fuzzing::request(target.unwrap_or_default(), accept);
    if let Some(range) = fuzzing::range(range, 1000) {
        assert!(range.start < range.end && range.end <= 1000, "{range:?}");
    }
}
