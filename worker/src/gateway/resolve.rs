//! Names → addresses, once for each connection: what was judged is what is connected to.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::Semaphore;

use crate::blocking;
use crate::domain::limits;

/// Where addresses come from; a seam for tests of names that lead to odd places.
pub trait Resolve: Send + Sync {
    /// The addresses of a name.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The resolver of the system.
#[derive(Debug)]
pub struct SystemResolver {
    /// It blocks a thread for each name, and the threads are everybody's.
    places: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(limits::GATEWAY_LOOKUPS_MAX)),
        }
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let place = self.places.clone().acquire_owned();
            let place = place.await.map_err(io::Error::other)?;
            let name = name.to_owned();
            let found = blocking::run(move || {
                // Held by the thread, which goes on also when nobody waits for it any more.
                let _place = place;
                let found = (name.as_str(), 0).to_socket_addrs()?;
                io::Result::Ok(found.map(|address| address.ip()).collect())
            });
            found.await.map_err(io::Error::other)?
        })
    }
}
