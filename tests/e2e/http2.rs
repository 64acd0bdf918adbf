//! The beginnings of HTTP/2 connections, byte by byte: for clients that do not go on. Knows
//! nothing of what the server does.

/// What a client says first, with empty settings.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame of stream 1.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short one").to_be_bytes();
    [&length[1..], &[kind, flags], &1u32.to_be_bytes(), payload].concat()
}

fn text(value: &str) -> Vec<u8> {
    let length = u8::try_from(value.len()).ok().filter(|length| *length < 127).expect("a short one");
    [&[length], value.as_bytes()].concat()
}

/// The head of a gRPC call: HPACK's static table, and literals that are not indexed.
pub fn call(host: &str, path: &str) -> Vec<u8> {
    let (post, http, name_path, name_host, name_content_type) = ([0x83], [0x86], [0x04], [0x01], [0x0f, 0x10]);
    let (path, host, content_type) = (text(path), text(host), text("application/grpc"));
    let te = [&[0][..], &text("te"), &text("trailers")].concat();
    let block: [&[u8]; 9] =
        [&post, &http, &name_path, &path, &name_host, &host, &name_content_type, &content_type, &te];
    [PREFACE, &frame(HEADERS, END_HEADERS, &block.concat())].concat()
}

/// A whole message, the last of its call.
pub fn message(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a short one").to_be_bytes();
    frame(DATA, END_STREAM, &[&[0][..], &length, body].concat())
}

/// The beginning of a message that would be longer.
pub fn half_message() -> Vec<u8> {
    frame(DATA, 0, &[0, 0, 0])
}
