//! Where a recording comes from: the broker, which may have it back from the vault for that, or a sealed
//! file that was rebuilt without any broker.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, header};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use intake::crypt4gh::SecretKey;
use model::SessionId;
use recording::sealed::{Ending, Opener};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::api::{self, Api, ApiError, refusal};
use crate::fault::Fault;
use crate::{Surroundings, say};

/// The largest recording that is taken, in bytes.
const LARGEST: u64 = 512 << 20;
/// A transfer in which nothing moves for this long has broken off.
const STALL: Duration = Duration::from_secs(150);
/// How often it is told how far it is, where there is no terminal.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// How much is read at once.
const PIECE: usize = 64 << 10;

/// The whole recording from the broker, held against the hash that the log has of it.
pub(super) async fn fetched(around: &Surroundings, api: &Api, session: &SessionId) -> Result<Vec<u8>, Fault> {
    let fault = |e: ApiError| e.into_fault(api.url());
    let request = Request::builder().method(Method::GET).uri(format!("/v1/recordings/{session}"));
    let request = request.header(header::ACCEPT, "application/x-asciicast");
    let body = Full::default().map_err(|never: std::convert::Infallible| match never {}).boxed_unsync();
    let response = api.send(request, body).await.map_err(fault)?;
    let status = response.status();
    if !status.is_success() {
        let body = api::collect(response).await.map_err(fault)?;
        return Err(fault(refusal(status, &body)));
    }
    let said = |name: &str| {
        let value = response.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (sealed, lies) = (said("x-sekisho-sha256"), said("x-sekisho-lies"));
    let size = said("content-length").parse().unwrap_or(0);
    let cast = body_of(around, response, session, size, lies == "vault").await?;
    if HEXLOWER.encode(&Sha256::digest(&cast)) != sealed {
        let why = "the recording is not the one that the log has sealed".to_owned();
        return Err(fault(ApiError::NotUnderstood(why)));
    }
    Ok(cast)
}

async fn body_of(
    around: &Surroundings,
    response: Response<Incoming>,
    session: &SessionId,
    size: u64,
    from_vault: bool,
) -> Result<Vec<u8>, Fault> {
    let broken = |why: String| {
        let fault = Fault::failed("broken_off", say!(PlayBrokenOff, session = session)).why(why);
        if from_vault { fault.todo(say!(PlayBrokenOffTodo)) } else { fault }
    };
    if size > LARGEST {
        return Err(broken(format!("it has {size} bytes; {LARGEST} are the most that is taken")));
    }
    let mut progress = Progress::new(around, size, from_vault);
    let (mut body, mut cast) = (response.into_body(), Vec::new());
    loop {
        let frame = tokio::time::timeout(STALL, body.frame()).await;
        let frame = frame.map_err(|_| broken("nothing came any more".to_owned()))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|e| broken(e.to_string()))?;
        if let Some(bytes) = frame.data_ref() {
            cast.extend_from_slice(bytes);
            if cast.len() as u64 > size {
                return Err(broken("more came than was recorded".to_owned()));
            }
            progress.at(cast.len() as u64);
        }
    }
    if (cast.len() as u64) < size {
        return Err(broken(format!("{} of {size} bytes came", cast.len())));
    }
    Ok(cast)
}

/// How far a recording is on its way, on standard error; only of what comes from the vault.
struct Progress<'a> {
    around: &'a Surroundings,
    size: u64,
    told: Instant,
    bar: Option<ProgressBar>,
    shown: bool,
}

impl Progress<'_> {
    fn new(around: &Surroundings, size: u64, shown: bool) -> Progress<'_> {
        let bar = (shown && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}");
            let bar =
                ProgressBar::new(size).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.with_message(say!(PlayFetching).text(around.lang))
        });
        Progress { around, size, told: Instant::now(), bar, shown }
    }

    fn at(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if self.shown && self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            let said = say!(PlayFetched, done = HumanBytes(done), size = HumanBytes(self.size));
            eprintln!("{}", said.text(self.around.lang));
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The recording in a sealed file, with the broker's key of recordings; and whether it has its end.
pub(super) fn opened(sealed: &Path, key: &Path) -> Result<(Vec<u8>, Ending), Fault> {
    let unreadable = |path: &Path, e: &(dyn std::error::Error + 'static)| {
        Fault::failed("io", say!(CannotRead, path = path.display())).because(e)
    };
    let text = Zeroizing::new(std::fs::read_to_string(key).map_err(|e| unreadable(key, &e))?);
    let bytes = HEXLOWER.decode(text.trim().as_bytes()).map(Zeroizing::new);
    let bytes: Option<Zeroizing<[u8; 32]>> =
        bytes.ok().and_then(|bytes| bytes.as_slice().try_into().ok()).map(Zeroizing::new);
    let bytes = bytes.ok_or_else(|| Fault::usage(say!(PlayNoKey, path = key.display())))?;
    let mut opener = Opener::new(SecretKey::from_bytes(&bytes));
    let mut file = File::open(sealed).map_err(|e| unreadable(sealed, &e))?;
    let (mut cast, mut piece) = (Vec::new(), vec![0; PIECE]);
    let damaged = |e: &(dyn std::error::Error + 'static)| {
        Fault::failed("damaged", say!(PlayNotOpened, path = sealed.display())).because(e)
    };
    loop {
        let read = file.read(&mut piece).map_err(|e| unreadable(sealed, &e))?;
        if read == 0 {
            break;
        }
        cast.extend_from_slice(&opener.push(&piece[..read]).map_err(|e| damaged(&e))?);
        if cast.len() as u64 > LARGEST {
            let why = format!("it has more than {LARGEST} bytes");
            return Err(Fault::failed("damaged", say!(PlayNotOpened, path = sealed.display())).why(why));
        }
    }
    let ending = opener.finish().map_err(|e| damaged(&e))?;
    Ok((cast, ending))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::SeededEntropy;
    use recording::sealed::Sealer;

    #[test]
    fn a_sealed_file_is_opened_with_its_key_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let secret = SecretKey::from_bytes(&[7; 32]);
        let (mut sealer, mut stream) = Sealer::begin(&secret.public(), &SeededEntropy::new(3)).unwrap();
        sealer.seal(b"one", false, &mut stream);
        std::fs::write(path("cut"), &stream).unwrap();
        sealer.seal(b"two", true, &mut stream);
        std::fs::write(path("whole"), &stream).unwrap();
        std::fs::write(path("key"), format!("{}\n", HEXLOWER.encode(&[7; 32]))).unwrap();
        std::fs::write(path("other"), HEXLOWER.encode(&[8; 32])).unwrap();
        std::fs::write(path("short"), "0707").unwrap();
        assert_eq!(opened(&path("whole"), &path("key")).unwrap(), (b"onetwo".to_vec(), Ending::Whole));
        assert_eq!(opened(&path("cut"), &path("key")).unwrap(), (b"one".to_vec(), Ending::CutOff));
        assert_eq!(opened(&path("whole"), &path("other")).unwrap_err().code, "damaged");
        assert_eq!(opened(&path("whole"), &path("short")).unwrap_err().code, "usage");
        assert_eq!(opened(&path("none"), &path("key")).unwrap_err().code, "io");
        assert_eq!(opened(&path("key"), &path("key")).unwrap_err().code, "damaged");
    }
}
