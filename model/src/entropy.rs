use std::sync::Mutex;

/// Where unpredictable bytes come from.
pub trait Entropy: Send + Sync {
    /// Fills `bytes`; on an error nothing in `bytes` may be used.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError>;

    /// An array of unpredictable bytes.
    fn array<const N: usize>(&self) -> Result<[u8; N], EntropyError>
    where
        Self: Sized,
    {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }
}

/// The source of randomness did not answer. Whatever needed it must fail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the source of randomness did not answer: {0}")]
pub struct EntropyError(pub String);

impl<E: Entropy + ?Sized> Entropy for std::sync::Arc<E> {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        (**self).fill(bytes)
    }
}

/// A predictable stream (SplitMix64) for tests that must repeat. It protects nothing.
#[derive(Debug)]
pub struct SeededEntropy(Mutex<u64>);

impl SeededEntropy {
    /// The stream that `seed` stands for.
    pub fn new(seed: u64) -> SeededEntropy {
        SeededEntropy(Mutex::new(seed))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        let mut state = self.0.lock().map_err(|_| EntropyError("poisoned".to_owned()))?;
        for chunk in bytes.chunks_mut(8) {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = *state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}
