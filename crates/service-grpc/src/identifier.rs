//! Identifiers and answers of queries as bytes: Explicit VR Little Endian with text in UTF-8. In memory they carry no
//! (0008,0005), since their text is decoded; on the wire they say ISO_IR 192.

use crate::error::malformed;
use bytes::Bytes;
use cairn_dicom::{
    CharacterSet,
    dataset::{DataSet, DecodeLimits},
    tags,
    transfer_syntax::Encoding,
};
use cairn_service_api::{Error, ErrorKind};

pub(crate) fn decode(bytes: &Bytes) -> Result<DataSet, Error> {
    let decoded = DataSet::decode(bytes, Encoding::ExplicitLittle, CharacterSet::UTF_8, &DecodeLimits::default());
    let (mut data_set, _report) = decoded.map_err(|_| malformed("data set"))?;
    data_set.remove(tags::SPECIFIC_CHARACTER_SET);
    Ok(data_set)
}

pub(crate) fn encode(data_set: &DataSet) -> Result<Bytes, Error> {
    let encoded = data_set.encode(Encoding::ExplicitLittle, CharacterSet::UTF_8);
    encoded.map(Bytes::from).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))
}
