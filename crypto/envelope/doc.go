// Package envelope is the ciphertext format of Sallyport: it reads, seals and
// opens self-describing messages under keys that are bound to a tenant, a
// keyring and a version. docs/formats/envelope.md is the same format written
// for somebody who implements it in another language.
//
// Four suites exist:
//
//	0x01  standard       AES-256-GCM, key-committing      overhead 108 bytes + context names
//	0x02  compact        AES-256-CTR + HMAC-SHA256        overhead  54 bytes
//	0x03  deterministic  AES-SIV (RFC 5297)               overhead  22 bytes
//	0x04  MAC            HMAC-SHA256 tag of a message     38 bytes
//
// Start with [DeriveAEADKey], [NewSIVKey] or [NewMACKey] to seal, and with
// [Parse] to read: Parse says which keyring and version a message claims
// before any key is fetched, and nothing it returns is authenticated until
// Open has succeeded.
//
// # Keys
//
// A version of a keyring holds a branch key, a Tink keyset. From it
//
//	lease key   = PRF(branch key, deployment, environment, tenant, keyring, version, lease, use)
//	message key = HKDF-Expand(lease key, header, context), with a 32-byte commitment
//
// so that every element of [Scope], every byte of the header and the whole
// context select the key. Whoever presents a ciphertext under another tenant,
// header or context derives an unrelated key: there is no associated data
// that can be forgotten. Each message key seals one message, hence no limit on
// messages follows from GCM's short nonce.
//
// # What is promised
//
// Suites 0x01 and 0x02 are authenticated encryption that commits to key,
// header and context (CMT-4 in the terms of Bellare and Hoang, "Efficient
// Schemes for Committing Authenticated Encryption", EUROCRYPT 2022): nobody,
// even knowing or choosing all keys, finds one envelope that opens in two
// ways. Plain AES-GCM does not commit, which breaks systems that hold many
// keys (Albertini, Duong, Gueron, Kölbl, Luykx and Schmieg, "How to Abuse and
// Fix Authenticated Encryption Without Key Commitment", USENIX Security 2022).
//
// Suite 0x03 reveals which plaintexts are equal under the same context, and
// does not commit to its key. Suite 0x04 hides nothing.
//
// No suite hides the length of the plaintext. A commitment and a digest of a
// context can be tested against guesses only by who holds the lease key.
package envelope
