//! What must hold whatever a hostile agent, repository or file sends, one check for each parser of
//! such input. A check takes bytes and panics where a promise is broken. The fuzz targets in
//! `fuzz/` call them for hours, the tests here for seconds; nothing of this is in a product build.
//!
//! Each promise is written from the outside, without the code it judges.

mod agents_toml;
mod gateway_request;
mod jsonrpc_lines;
mod pty_text;
mod redactor;
mod tree_path;

pub use agents_toml::agents_toml;
pub use gateway_request::gateway_request;
pub use jsonrpc_lines::jsonrpc_lines;
pub use pty_text::pty_text;
pub use redactor::redactor;
pub use tree_path::tree_path;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::collection::vec;
    use proptest::prelude::{Just, Strategy, any, prop_oneof};
    use proptest::test_runner::{Config, TestRunner};

    /// Pieces that mean something to the parser, put together at random, with noise between.
    fn pieces(known: &[&[u8]]) -> impl Strategy<Value = Vec<u8>> + use<> {
        let known: Vec<_> = known.iter().map(|piece| Just(piece.to_vec())).collect();
        let known = proptest::strategy::Union::new(known);
        let piece = prop_oneof![6 => known, 1 => vec(any::<u8>(), 0..6)];
        vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    fn holds(check: fn(&[u8]), cases: u32, known: &[&[u8]]) {
        let config = Config {
            cases,
            failure_persistence: None,
            ..Config::default()
        };
        let mut runner = TestRunner::new(config);
        let strategy = prop_oneof![2 => pieces(known), 1 => vec(any::<u8>(), 0..200)];
        runner
            .run(&strategy, |bytes| {
                check(&bytes);
                Ok(())
            })
            .unwrap();
    }

    /// The committed seeds, which are also where each input that once broke something is kept.
    fn seeds_hold(target: &str, check: fn(&[u8])) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz/seeds")
            .join(target);
        let mut count = 0;
        for entry in std::fs::read_dir(&dir).unwrap() {
            check(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "no seeds in {}", dir.display());
    }

    #[test]
    fn lines_of_a_protocol_are_messages_or_noise_and_never_a_panic() {
        seeds_hold("jsonrpc_lines", super::jsonrpc_lines);
        holds(
            super::jsonrpc_lines,
            400,
            &[
                b"\n",
                b"\r\n",
                b"{",
                b"}",
                b"[",
                b"]",
                b",",
                b":",
                b"\"id\"",
                b"\"method\"",
                b"\"params\"",
                b"\"result\"",
                b"\"error\"",
                b"\"m\"",
                b"1",
                b"-1",
                b"1e999",
                b"null",
                b"\"\\u0000\"",
                b"\"\\ud800\"",
                b"\xef\xbb\xbf",
                b"\0",
                b" ",
                b"{\"id\":1,\"method\":\"m\",\"params\":{\"a\":\"\\u0000\"}}\n",
                b"{\"id\":\"2\",\"result\":[1]}\r\n",
            ],
        );
    }

    #[test]
    fn an_accepted_path_is_safe_on_every_file_system() {
        seeds_hold("tree_path", super::tree_path);
        holds(
            super::tree_path,
            2_000,
            &[
                b"/",
                b"..",
                b".",
                b".git",
                b"git",
                b"GIT",
                b"~1",
                b"~",
                b"modules",
                b"a",
                b" ",
                b":",
                b"\\",
                b"\n",
                b"\0",
                b"\x7f",
                b"$DATA",
                "\u{200c}".as_bytes(),
                "\u{feff}".as_bytes(),
                "\u{fe0f}".as_bytes(),
                "\u{180b}".as_bytes(),
                "\u{e0001}".as_bytes(),
                "\u{ff0e}".as_bytes(),
                "\u{ff47}".as_bytes(),
                "\u{1d4be}".as_bytes(),
                "\u{3164}".as_bytes(),
                b"\xff",
            ],
        );
    }

    #[test]
    fn an_agents_file_is_refused_or_makes_sense() {
        seeds_hold("agents_toml", super::agents_toml);
        holds(
            super::agents_toml,
            400,
            &[
                b"\n",
                b"[agents.a]\n",
                b"[agents.b]\n",
                b"[agents.\"A b\"]\n",
                b"path = \"acp\"\n",
                b"path = \"pipe\"\n",
                b"path = \"pty\"\n",
                b"path = \"noop\"\n",
                b"command = [\"x\", \"{prompt}\"]\n",
                b"command = [\"{prompt}\"]\n",
                b"extends = \"a\"\n",
                b"extends = \"b\"\n",
                b"fallback = \"b\"\n",
                b"default_agent = \"a\"\n",
                b"slots = 0\n",
                b"slots = 4294967295\n",
                b"idle_timeout = \"18446744073709551615h\"\n",
                b"idle_timeout = \"5m\"\n",
                b"env = { DATABASE_URL = \"x\" }\n",
                b"home_files = [\"../x\", \".ok\"]\n",
                b"[agents.a.cli]\nrows = 0\n",
                b"[prices.m]\n",
                b"usage = { format = \"regex\" }\n",
            ],
        );
    }

    #[test]
    fn a_request_that_is_let_through_is_one_request_to_a_listed_host() {
        seeds_hold("gateway_request", super::gateway_request);
        holds(
            super::gateway_request,
            1_000,
            &[
                b"a.b\n\n",
                b"*.a.b\nlocalhost:1\n\n",
                b"127.0.0.1:1\n\n",
                b"private:a.b:1\n\n",
                b"CONNECT ",
                b"GET ",
                b"POST ",
                b"http://",
                b"HTTP://",
                b"a.b",
                b"A.B.",
                b":1",
                b":443",
                b":80",
                b"@",
                b"#",
                b"/x?y",
                b"127.0.0.1",
                b"[::ffff:127.0.0.1]",
                b"0x7f.1",
                b"localhost",
                b" HTTP/1.1\r\n",
                b" HTTP/1.0\r\n",
                b"\r\n",
                b"\n",
                b"\r\n\r\n",
                b"\r",
                b"Host: c.d\r\n",
                b"Content-Length: 3\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Connection: x, te\r\n",
                b"Expect: 100-continue\r\n",
                b" ",
                b"\t",
                b"x: y\r\n",
            ],
        );
    }

    #[test]
    fn no_secret_is_left_in_a_text_however_it_is_cut() {
        seeds_hold("redactor", super::redactor);
        holds(
            super::redactor,
            400,
            &[
                b"\x03",
                b"password1",
                b"password12",
                b"word12345",
                b"aaaaaaaa",
                b"aaaaaaaaaaaa",
                b"a",
                b"\n",
                b"\n\n",
                b" ",
                b"pass",
                b"word1",
                b"2345",
                b"cGFzc3dvcmQx",
                b"[secret S]",
                b"%70assword1",
                b"70617373776f726431",
                "p\u{e4}ssw\u{f6}rter".as_bytes(),
                b"\xc3",
                b"\\u00e4",
                b"\"",
                b"quote\"d\\secret",
                b"quote\\\"d\\\\secret",
            ],
        );
    }

    #[test]
    fn text_of_a_terminal_holds_no_control_characters_and_no_memory() {
        seeds_hold("pty_text", super::pty_text);
        holds(
            super::pty_text,
            300,
            &[
                b"\n",
                b"\r",
                b"\t",
                b"\x08",
                b"\x1b[2J",
                b"\x1b[H",
                b"\x1b[?1049h",
                b"\x1b[?1049l",
                b"\x1b[8;9999;9999t",
                b"\x1b]0;title\x07",
                b"\x1b]52;c;AAAA\x07",
                b"\x1b[6n",
                b"\x1b[9999999999C",
                b"\x1b[1;3r",
                b"\x1bM",
                b"\x1b(0",
                b"\x1bP+q\x1b\\",
                b"\x9b",
                b"\xc2\x9b31m",
                b"\x7f",
                "\u{202e}".as_bytes(),
                "\u{1f469}\u{200d}".as_bytes(),
                "\u{301}".as_bytes(),
                "\u{4e2d}".as_bytes(),
                b"word",
                b"\xe2\x82",
                b"\0",
                b"\x1b[?7l",
                b"\x1b[?6h",
                b"\x1b[4h",
                b"\x1b[100L",
                b"\x1b[100M",
                b"\x1b[100P",
            ],
        );
    }
}
