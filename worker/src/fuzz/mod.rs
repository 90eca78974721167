//! What must hold whatever a hostile agent, repository or file sends, one check for each parser of
//! such input. A check takes bytes and panics where a promise is broken. The fuzz targets in
//! `fuzz/` call them for hours, the tests here for seconds; nothing of this is in a product build.
//!
//! Each promise is written from the outside, without the code it judges.

mod agents_toml;
mod apply_patch;
mod gateway_request;
mod jsonrpc_lines;
mod llm_frames;
mod pty_text;
mod redactor;
mod tool_input;
mod tool_stage;
mod tree_path;

pub use agents_toml::agents_toml;
pub use apply_patch::apply_patch;
pub use gateway_request::gateway_request;
pub use jsonrpc_lines::jsonrpc_lines;
pub use llm_frames::llm_frames;
pub use pty_text::pty_text;
pub use redactor::redactor;
pub use tool_input::tool_input;
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
                b"path = \"native\"\n",
                b"native = { providers = [\"p\"], max_tokens = -1 }\n",
                b"model = \"p/m\"\n",
                b"[providers.p]\napi = \"openai\"\n",
                b"base_url = \"http://[::1]:1/v1\"\napi_key_env = \"K\"\n",
                b"base_url = \"http://a.b\"\napi_key_file = \"/k\"\n",
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

    #[test]
    fn an_answer_of_any_frames_has_one_end_and_figures_that_add_up() {
        seeds_hold("llm_frames", super::llm_frames);
        holds(
            super::llm_frames,
            600,
            &[
                b"\x00", b"\x01", b"\x02", b"\x03", b"\x04", b"\n", b"[DONE]\n",
                b"{\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n",
                b"{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"call_1\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]}}]}\n",
                b"{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"}\"}}]}}]}\n",
                b"{\"choices\":[{\"delta\":{\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":{}}},{\"id\":\"a\"}]}}]}\n",
                b"{\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n",
                b"{\"usage\":{\"prompt_tokens\":9223372036854775807,\"completion_tokens\":-1}}\n",
                b"{\"usage\":{\"prompt_tokens\":5,\"prompt_tokens_details\":{\"cached_tokens\":7},\"completion_tokens\":2,\"completion_tokens_details\":{\"reasoning_tokens\":3}}}\n",
                b"{\"error\":{\"message\":\"no\",\"code\":429}}\n",
                b"{\"type\":\"response.output_item.added\",\"output_index\":0,\"item\":{\"type\":\"function_call\",\"call_id\":\"call_1\",\"name\":\"f\",\"arguments\":\"\"}}\n",
                b"{\"type\":\"response.function_call_arguments.delta\",\"output_index\":0,\"delta\":\"{}\"}\n",
                b"{\"type\":\"response.output_item.done\",\"output_index\":18446744073709551615,\"item\":{\"type\":\"function_call\",\"call_id\":\"b\",\"name\":\"f\",\"arguments\":\"{}\"}}\n",
                b"{\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":2147483647,\"output_tokens\":1e3}}}\n",
                b"{\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":3,\"cache_read_input_tokens\":2147483647}}}\n",
                b"{\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"tool_use\",\"id\":\"call_1\",\"name\":\"f\",\"input\":{}}}\n",
                b"{\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{}\"}}\n",
                b"{\"type\":\"content_block_stop\",\"index\":1}\n",
                b"{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"},\"usage\":{\"output_tokens\":4}}\n",
                b"{\"type\":\"message_stop\"}\n",
                b"{\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"id\":\"call_1\",\"name\":\"f\"},\"thoughtSignature\":\"s\"},{\"thoughtSignature\":\"t\"}]},\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":1,\"toolUsePromptTokenCount\":2147483647,\"cachedContentTokenCount\":2}}\n",
                b"{\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}\n",
                b"{\"message\":{\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{}}}]}}\n",
                b"{\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":3,\"eval_count\":4}\n",
            ],
        );
    }

    #[test]
    fn a_patch_is_applied_or_changes_nothing_and_never_leaves_the_worktree() {
        seeds_hold("apply_patch", super::apply_patch);
        holds(
            super::apply_patch,
            300,
            &[
                b"\0",
                b"\n",
                b"one\n",
                b"two\n",
                b"\r\n",
                b" one\n",
                b"-one\n",
                b"+one\n",
                b"-two\n",
                b"+three\n",
                b" \n",
                b"+\n",
                b"one\0two\0*** Begin Patch\n",
                b"one\ntwo\n\0\0*** Begin Patch\n",
                b"*** Begin Patch\n",
                b"*** End Patch\n",
                b"*** End of File\n",
                b"@@\n",
                b"@@ one\n",
                b"@@ -1,2 +1,2 @@\n",
                b"*** Update File: a.txt\n",
                b"*** Update File: in\n",
                b"*** Update File: x\n",
                b"*** Update File: d/b.txt\n",
                b"*** Delete File: a.txt\n",
                b"*** Delete File: out\n",
                b"*** Add File: new\n",
                b"*** Add File: new/er\n",
                b"*** Add File: a.txt/x\n",
                b"*** Add File: out/y\n",
                b"*** Add File: .git/hooks/x\n",
                b"*** Add File: ../outside/z\n",
                b"*** Add File: d\n",
                b"*** Move to: moved\n",
                b"*** Move to: d/b.txt\n",
                b"*** Move to: ../outside/x\n",
                b"*** Move to: out/x\n",
            ],
        );
    }

    #[test]
    fn a_tool_that_is_called_with_anything_stays_in_the_worktree_and_says_something() {
        seeds_hold("tool_input", super::tool_input);
        holds(
            super::tool_input,
            400,
            &[
                b"\0",
                b"\x01",
                b"\x02",
                b"\x03",
                b"\x04",
                b"\x05",
                b"\x06",
                b"\x07",
                b"{",
                b"}",
                b",",
                b":",
                b"[",
                b"]",
                b"null",
                b"-1",
                b"1e400",
                b"18446744073709551615",
                b"true",
                b"\"\"",
                b"\"a.txt\"",
                b"\"out/x\"",
                b"\"x\"",
                b"\"../outside/x\"",
                b"\"/\"",
                b"\".git/config\"",
                b"\"in\"",
                b"\"d\"",
                b"\"\\u0000\"",
                b"\"\\ud83d\\ude00\"",
                b"\x00{\"path\":\"",
                b"\x01{\"path\":\"",
                b"\x02{\"pattern\":\"",
                b"\x03{\"pattern\":\"",
                b"\x05{\"path\":\"a.txt\",\"old_string\":\"",
                b"\x06{\"path\":\"",
                b"\x07{\"patch\":\"*** Begin Patch\\n",
                b"\",\"new_string\":\"",
                b"\",\"content\":\"",
                b"\",\"path\":\"",
                b"\",\"offset\":",
                b",\"limit\":",
                b"\",\"replace_all\":",
                b"\"}",
                b"one",
                b"out/x",
                b"a.txt",
                b".*",
                b"**/*",
                b"(",
                b"(?s).{0,1000}",
                b"\\\\",
                b"\\n",
                b"../",
                b"/etc/passwd",
                b"~",
                b"\"path\":",
                b"\"pattern\":",
                b"\"old_string\":",
                b"\"content\":",
                b"\"command\":",
                b"\"cwd\":",
            ],
        );
    }
}
