use std::fmt;

use model::{Entropy, EntropyError};
use p256::ecdsa::signature::Signer;
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The most certificates a stored chain may have.
const CHAIN_MAX: usize = 8;

/// Why a key is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not an ECDSA P-256 key in the expected encoding.
    #[error("not an ECDSA P-256 key")]
    Malformed,
    /// No randomness for a new key.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// An ECDSA P-256 key pair.
///
/// Its randomness comes from [`Entropy`] and its signatures are deterministic (RFC 6979), so that
/// nothing here asks the operating system. The secret is wiped when dropped and never printed.
#[derive(Clone)]
pub struct KeyPair {
    secret: p256::SecretKey,
    /// The public point, uncompressed (SEC 1), 65 bytes.
    point: Vec<u8>,
}

impl KeyPair {
    /// A fresh key.
    pub fn generate(entropy: &(impl Entropy + ?Sized)) -> Result<KeyPair, KeyError> {
        // A draw outside the group's order has a chance of 2⁻³²: a few draws always suffice.
        for _ in 0..16 {
            let mut scalar = Zeroizing::new([0; 32]);
            entropy.fill(scalar.as_mut_slice())?;
            if let Ok(secret) = p256::SecretKey::from_slice(scalar.as_slice()) {
                return Ok(KeyPair::from_secret(secret));
            }
        }
        Err(EntropyError("it repeats values that no key can have".to_owned()).into())
    }

    /// From PKCS #8 (RFC 5958), DER.
    pub fn from_pkcs8(der: &[u8]) -> Result<KeyPair, KeyError> {
        p256::SecretKey::from_pkcs8_der(der).map(KeyPair::from_secret).map_err(|_| KeyError::Malformed)
    }

    fn from_secret(secret: p256::SecretKey) -> KeyPair {
        let point = secret.public_key().to_sec1_point(false).as_bytes().to_vec();
        KeyPair { secret, point }
    }

    /// PKCS #8 (RFC 5958), DER.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let document = self.secret.to_pkcs8_der().map_err(|_| KeyError::Malformed)?;
        Ok(Zeroizing::new(document.as_bytes().to_vec()))
    }

    /// The same for a TLS stack.
    pub fn to_private_key_der(&self) -> Result<PrivateKeyDer<'static>, KeyError> {
        Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.to_pkcs8()?.to_vec())))
    }

    /// The public key as a SubjectPublicKeyInfo (RFC 5280), DER.
    pub fn spki(&self) -> Result<Vec<u8>, KeyError> {
        let document = self.secret.public_key().to_public_key_der().map_err(|_| KeyError::Malformed)?;
        Ok(document.as_bytes().to_vec())
    }

    /// An ASN.1 DER signature over SHA-256 of `message`.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let key = p256::ecdsa::SigningKey::from(&self.secret);
        let signature: p256::ecdsa::DerSignature = key.sign(message);
        signature.as_bytes().to_vec()
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair(P-256, {})", data_encoding::HEXLOWER.encode(&sha256(&self.point)[..8]))
    }
}

impl rcgen::PublicKeyData for KeyPair {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for KeyPair {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(KeyPair::sign(self, message))
    }
}

/// The public half, once it has proved to be a point of the curve.
pub(super) struct PublicPoint(Vec<u8>);

impl PublicPoint {
    pub(super) fn from_spki(spki: &[u8]) -> Result<PublicPoint, KeyError> {
        let key = p256::PublicKey::from_public_key_der(spki).map_err(|_| KeyError::Malformed)?;
        Ok(PublicPoint(key.to_sec1_point(false).as_bytes().to_vec()))
    }
}

impl rcgen::PublicKeyData for PublicPoint {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// Checks a SubjectPublicKeyInfo in DER from outside: P-256, and a point of the curve.
pub fn check_public_key(spki: &[u8]) -> Result<(), KeyError> {
    PublicPoint::from_spki(spki).map(|_| ())
}

/// SHA-256, the fingerprint of certificates.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A certificate chain (leaf first) with the leaf's private key: what a TLS end needs.
#[derive(Debug)]
pub struct Identity {
    /// The leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

/// Why two PEM texts are not an [`Identity`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// No certificate was found, too many, or one is damaged.
    #[error("the certificate file holds no readable chain of certificates")]
    Chain,
    /// No private key was found, or it is damaged.
    #[error("the key file holds no readable private key")]
    Key,
}

impl Identity {
    /// From PEM texts (RFC 7468): the chain, leaf first, and the key.
    pub fn from_pem(chain: &str, key: &str) -> Result<Identity, IdentityError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .take(CHAIN_MAX + 1)
            .collect::<Result<_, _>>()
            .map_err(|_| IdentityError::Chain)?;
        if chain.is_empty() || chain.len() > CHAIN_MAX {
            return Err(IdentityError::Chain);
        }
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| IdentityError::Key)?;
        Ok(Identity { chain, key })
    }

    /// The chain as PEM, leaf first.
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|der| crate::pem::encode("CERTIFICATE", der)).collect()
    }

    /// The key as PEM (PKCS #8).
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(crate::pem::encode("PRIVATE KEY", self.key.secret_der()))
    }
}

impl Clone for Identity {
    fn clone(&self) -> Identity {
        Identity { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::SeededEntropy;

    #[test]
    fn keys_survive_pkcs8_and_pem() {
        let key = KeyPair::generate(&SeededEntropy::new(1)).unwrap();
        let again = KeyPair::from_pkcs8(&key.to_pkcs8().unwrap()).unwrap();
        assert_eq!(again.spki().unwrap(), key.spki().unwrap());
        assert_eq!(again.sign(b"x"), key.sign(b"x"), "signatures are deterministic");
        let chain = vec![CertificateDer::from(vec![1, 2, 3])];
        let identity = Identity { chain, key: key.to_private_key_der().unwrap() };
        let again = Identity::from_pem(&identity.chain_pem(), &identity.key_pem()).unwrap();
        assert_eq!(again.chain, identity.chain);
        assert_eq!(again.key.secret_der(), identity.key.secret_der());
    }

    #[test]
    fn the_tls_stack_takes_the_key() {
        let key = KeyPair::generate(&SeededEntropy::new(2)).unwrap();
        let rng = ring::rand::SystemRandom::new();
        let alg = &ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
        assert!(ring::signature::EcdsaKeyPair::from_pkcs8(alg, &key.to_pkcs8().unwrap(), &rng).is_ok());
    }

    #[test]
    fn rubbish_is_no_key() {
        assert_eq!(check_public_key(&[]), Err(KeyError::Malformed));
        let mut spki = KeyPair::generate(&SeededEntropy::new(3)).unwrap().spki().unwrap();
        assert_eq!(check_public_key(&spki), Ok(()));
        let last = spki.len() - 1;
        spki[last] ^= 1;
        assert_eq!(check_public_key(&spki), Err(KeyError::Malformed), "not a point of the curve");
        assert!(matches!(Identity::from_pem("", ""), Err(IdentityError::Chain)));
    }
}
