//! End-to-end, interoperability and fault tests live in `tests/system`; this library is empty.
