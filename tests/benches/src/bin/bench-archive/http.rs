//! An HTTP/1.1 client that costs little: one connection, bodies counted and passed over.

use crate::{Outcome, dimse::PATIENCE};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// An answer, read to its end.
pub struct Answer {
    pub status: u16,
    /// Bytes of the body.
    pub length: u64,
    /// From the request's last byte to the body's first.
    pub first_byte: Duration,
}

/// One connection, kept.
pub struct Http {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Http {
    pub fn connect(server: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::with_capacity(512 << 10, stream.try_clone()?), writer: stream })
    }

    /// GET; any status but 200 (and 204 without a body) is an error.
    pub fn get(&mut self, path: &str, accept: &str, into: Option<&mut Vec<u8>>) -> Outcome<Answer> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: archive\r\nAccept: {accept}\r\n\r\n");
        self.writer.write_all(head.as_bytes())?;
        let answer = self.answer(Instant::now(), into)?;
        match answer.status {
            200 | 204 => Ok(answer),
            status => Err(format!("GET {path}: status {status}").into()),
        }
    }

    /// Begins a STOW-RS request with a body of this length, which follows by [`Http::write`].
    pub fn begin_store(&mut self, boundary: &str, length: u64) -> Outcome<()> {
        let kind = format!("multipart/related; type=\"application/dicom\"; boundary={boundary}");
        let head = format!(
            "POST /dicom-web/studies HTTP/1.1\r\nHost: archive\r\nAccept: application/dicom+json\r\n\
             Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        );
        self.write(head.as_bytes())
    }

    /// POST of DICOM JSON; gives the status.
    pub fn post(&mut self, path: &str, body: &[u8], into: &mut Vec<u8>) -> Outcome<u16> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: archive\r\nAccept: application/dicom+json\r\n\
             Content-Type: application/dicom+json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.write(head.as_bytes())?;
        self.write(body)?;
        Ok(self.answer(Instant::now(), Some(into))?.status)
    }

    /// PUT to another kind of server; any status but 200 is an error.
    pub fn put(&mut self, host: &str, path: &str, body: &[u8]) -> Outcome<()> {
        let head = format!("PUT {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n", body.len());
        self.write(head.as_bytes())?;
        self.write(body)?;
        match self.answer(Instant::now(), None)?.status {
            200 => Ok(()),
            status => Err(format!("PUT: status {status}").into()),
        }
    }

    pub fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        Ok(self.writer.write_all(bytes)?)
    }

    /// Reads the answer to a STOW-RS request of so many instances, all of which must have been stored.
    pub fn stored(&mut self, instances: u64) -> Outcome<()> {
        let mut body = Vec::new();
        let answer = self.answer(Instant::now(), Some(&mut body))?;
        let told: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let items = |sequence: &str| told[sequence]["Value"].as_array().map_or(0, Vec::len) as u64;
        let (stored, failed) = (items("00081199"), items("00081198"));
        if answer.status != 200 || failed > 0 || stored != instances {
            let status = answer.status;
            return Err(format!("STOW-RS: status {status}, {stored} of {instances} stored, {failed} failed").into());
        }
        Ok(())
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err("the connection ended where an answer was due".into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn answer(&mut self, asked: Instant, mut into: Option<&mut Vec<u8>>) -> Outcome<Answer> {
        let status_line = self.line()?;
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status: u16 = status.ok_or_else(|| format!("not an HTTP answer: {status_line}"))?;
        let (mut length, mut chunked) = (None, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(':') {
                None => break,
                Some(("content-length", value)) => length = Some(value.trim().parse::<u64>()?),
                Some(("transfer-encoding", value)) => chunked = value.contains("chunked"),
                Some(_) => {}
            }
        }
        if status == 204 || length == Some(0) {
            return Ok(Answer { status, length: 0, first_byte: asked.elapsed() });
        }
        self.reader.fill_buf()?;
        let first_byte = asked.elapsed();
        let mut total = 0;
        if chunked {
            loop {
                let line = self.line()?;
                let size = u64::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)?;
                self.read(size, into.as_deref_mut())?;
                total += size;
                self.line()?;
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = length {
            total = length;
            self.read(total, into)?;
        } else {
            // Neither: the body ends with the connection.
            loop {
                let there = self.reader.fill_buf()?.len();
                if there == 0 {
                    break;
                }
                self.read(there as u64, into.as_deref_mut())?;
                total += there as u64;
            }
        }
        Ok(Answer { status, length: total, first_byte })
    }

    fn read(&mut self, length: u64, into: Option<&mut Vec<u8>>) -> Outcome<()> {
        if let Some(into) = into {
            let read = self.reader.by_ref().take(length).read_to_end(into)? as u64;
            return if read == length { Ok(()) } else { Err("the connection ended within a body".into()) };
        }
        let mut left = length;
        while left > 0 {
            let there = self.reader.fill_buf()?.len();
            if there == 0 {
                return Err("the connection ended within a body".into());
            }
            let taken = (there as u64).min(left) as usize;
            self.reader.consume(taken);
            left -= taken as u64;
        }
        Ok(())
    }
}
