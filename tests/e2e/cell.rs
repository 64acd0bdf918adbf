//! A cell in a real redis-server: servers that share it, their workers, and the way to it, which
//! a test can cut or lead elsewhere. Knows no cases.

use crate::redis_proxy::RedisProxy;
use crate::redis_server::RedisServer;
use crate::scene::{Scene, Server, Worker};

/// What keeps everything that was acknowledged.
pub const ALWAYS: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

/// One cell. Its servers reach Redis through the proxy.
pub struct Cell<'s> {
    pub scene: &'s Scene,
    pub redis: RedisServer,
    pub proxy: RedisProxy,
    flags: Vec<String>,
}

impl<'s> Cell<'s> {
    /// With flags for all its servers.
    pub fn new(scene: &'s Scene, flags: &[&str]) -> Self {
        let redis = RedisServer::start(ALWAYS);
        let proxy = RedisProxy::to(&redis.socket());
        Self { scene, redis, proxy, flags: flags.iter().map(|flag| (*flag).to_owned()).collect() }
    }

    /// A server on a free port.
    pub fn server(&self, more: &[&str]) -> Server {
        self.server_on("127.0.0.1:0", more)
    }

    pub fn server_on(&self, listen: &str, more: &[&str]) -> Server {
        let url = self.proxy.url();
        let mut command = self.scene.command(&["serve", "-o", "json", "--listen", listen, "--store", &url]);
        command.args(&self.flags).args(more).env("VOLLEY_LOG", "warn,volley_control=debug,volley_store=debug");
        let (process, told) = self.scene.start(command);
        Server::of(process, &told)
    }

    /// As by `kill -9`, and started anew on the same port.
    pub fn kill_and_restart(&self, server: &mut Server) {
        server.process.kill();
        let address = server.address().to_owned();
        let listening = || std::net::TcpListener::bind(&address).ok();
        drop(crate::scene::until("the port is free again", listening));
        *server = self.server_on(&address, &[]);
    }

    /// A worker of one server, from which it learns of the others.
    pub fn worker(&self, server: &Server, name: &str, more: &[&str]) -> Worker {
        self.scene.worker(server, name, &[&["--cpu", "2", "--memory", "1Gi", "--slots", "16"], more].concat())
    }
}
