//! Playing a script on a connection, while watching whether the client is still there.
//!
//! Owns the write side. Decides nothing. Invariant: whatever the script is doing, the client's leaving ends it.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::WriteHalf;

use super::http::{Conn, watch};
use super::script::{Piece, Script};

/// How a script ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Played {
    /// All of it was sent.
    Whole,
    /// The client left before the end.
    Left,
    /// The script itself broke the connection off.
    Broken,
}

/// Plays `script` on `conn`.
pub async fn play(conn: &mut Conn, script: &Script) -> Played {
    let (read, mut write, buffer) = conn.halves();
    let played = tokio::select! {
        biased;
        played = pieces(&mut write, script) => played.unwrap_or(Played::Left),
        () = watch(read, buffer) => Played::Left,
    };
    if played == Played::Broken && matches!(script.pieces.last(), Some(Piece::Reset)) {
        reset(conn);
    }
    played
}

/// Makes the coming close a RST.
pub fn reset(conn: &Conn) {
    if let Err(error) = conn.stream.set_zero_linger() {
        tracing::debug!(%error, "the connection was already gone");
    }
}

async fn pieces(write: &mut WriteHalf<'_>, script: &Script) -> io::Result<Played> {
    for piece in &script.pieces {
        match piece {
            Piece::Send(bytes, times) => {
                for _ in 0..*times {
                    send(write, bytes, script.rate).await?;
                }
            }
            Piece::Wait(time) if time.is_zero() => {}
            Piece::Wait(time) => tokio::time::sleep(*time).await,
            Piece::Beat(every, bytes) => loop {
                send(write, bytes, script.rate).await?;
                tokio::time::sleep((*every).max(Duration::from_millis(1))).await;
            },
            Piece::Silence => std::future::pending().await,
            Piece::Reset => return Ok(Played::Broken),
            Piece::Close => {
                write.shutdown().await?;
                return Ok(Played::Broken);
            }
            Piece::Half => {
                write.shutdown().await?;
                std::future::pending().await
            }
        }
    }
    Ok(Played::Whole)
}

async fn send(write: &mut WriteHalf<'_>, bytes: &[u8], rate: Option<u64>) -> io::Result<()> {
    let Some(rate) = rate else {
        return write.write_all(bytes).await;
    };
    for part in bytes.chunks((rate / 20).max(1) as usize) {
        write.write_all(part).await?;
        tokio::time::sleep(Duration::from_secs_f64(part.len() as f64 / rate as f64)).await;
    }
    Ok(())
}
