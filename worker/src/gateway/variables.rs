//! The environment that makes an agent and its tools ask the gateway.

/// Variables for a sandbox in which the relay listens on this port of 127.0.0.1.
///
/// Who reads which: curl, git, cargo, pip and Go read `http_proxy` in lower case only, and
/// `https_proxy` and `no_proxy` in either; Claude Code, opencode (Bun) and Codex (reqwest) the upper
/// case; Node's own `fetch` and `http` nothing until `NODE_USE_ENV_PROXY` is set (22.21, 24.5); npm
/// and Yarn have names of their own besides. What goes to the own machine goes there directly: opencode
/// talks to a server of its own on localhost and needs that. `::1` is written without brackets,
/// since httpx fails at its start on `[::1]`.
pub fn proxy_variables(port: u16) -> Vec<(String, String)> {
    const PROXY: [&str; 14] = [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "WS_PROXY",
        "WSS_PROXY",
        "npm_config_proxy",
        "npm_config_https_proxy",
        "YARN_HTTP_PROXY",
        "YARN_HTTPS_PROXY",
        "GLOBAL_AGENT_HTTP_PROXY",
        "GLOBAL_AGENT_HTTPS_PROXY",
    ];
    const DIRECT: [&str; 4] = [
        "NO_PROXY",
        "no_proxy",
        "npm_config_noproxy",
        "GLOBAL_AGENT_NO_PROXY",
    ];
    let proxy = format!("http://127.0.0.1:{port}");
    let through = PROXY.iter().map(|name| ((*name).to_owned(), proxy.clone()));
    let direct = DIRECT
        .iter()
        .map(|name| ((*name).to_owned(), "localhost,127.0.0.1,::1".to_owned()));
    let node = [("NODE_USE_ENV_PROXY".to_owned(), "1".to_owned())];
    through.chain(direct).chain(node).collect()
}
