package envelope_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"testing"

	daead "github.com/tink-crypto/tink-go/v2/daead/subtle"
	mac "github.com/tink-crypto/tink-go/v2/mac/subtle"
	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/crypto/envelope"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestHKDF runs the SHA-256 cases of RFC 5869 appendix A: the pseudorandom key
// through our expander, whose 64 bytes begin with the expected output or, for
// the longest case, are its beginning; and case 1 and 3 through the PRF of Tink.
func TestHKDF(t *testing.T) {
	for name, tc := range map[string]struct{ prk, info, okm string }{
		"A.1": {
			"077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
			"f0f1f2f3f4f5f6f7f8f9",
			"3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
		},
		"A.2": {
			"06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
			"b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecf" +
				"d0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeef" +
				"f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
			"b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c" +
				"59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71" +
				"cc30c58179ec3e87c14c01d5c1f3434f1d87",
		},
		"A.3": {
			"19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04", "",
			"8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
		},
	} {
		first, second := envelope.Expand(unhex(t, tc.prk), unhex(t, tc.info))
		got, want := append(first, second...), unhex(t, tc.okm)
		if n := min(len(got), len(want)); !bytes.Equal(got[:n], want[:n]) {
			t.Errorf("RFC 5869 %s: %x, want %x", name, got, want)
		}
	}
	got, err := branch(t, fill(0x0b, 22)).ComputePRF(nil, 42)
	if want := "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"; err != nil || hex.EncodeToString(got) != want {
		t.Errorf("RFC 5869 A.3 by the PRF: %x, %v", got, err)
	}
}

func TestExpandIsHKDFExpand(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key")
		info := rapid.SliceOf(rapid.Byte()).Draw(t, "info")
		want, err := hkdf.Expand(sha256.New, key, string(info), 64)
		if err != nil {
			t.Fatal(err)
		}
		first, second := envelope.Expand(key, info)
		if len(first) != 32 || !bytes.Equal(append(first[:32:32], second...), want) {
			t.Fatal("the expander and crypto/hkdf disagree")
		}
	})
}

// TestHMAC runs cases of RFC 4231 whose keys the HMAC of Tink accepts.
func TestHMAC(t *testing.T) {
	for name, tc := range map[string]struct {
		key, data []byte
		want      string
	}{
		"4.2": {fill(0x0b, 20), []byte("Hi There"), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
		"4.4": {fill(0xaa, 20), fill(0xdd, 50), "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
		"4.7": {fill(0xaa, 131), []byte("Test Using Larger Than Block-Size Key - Hash Key First"), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
	} {
		p, err := mac.NewHMAC("SHA256", tc.key, 32)
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.ComputeMAC(tc.data)
		if err != nil || hex.EncodeToString(got) != tc.want {
			t.Errorf("RFC 4231 %s: %x, %v", name, got, err)
		}
	}
}

// TestGCM runs test cases 14 and 16 of McGrew and Viega, "The Galois/Counter
// Mode of Operation", the AES-256 cases of the submission behind SP 800-38D.
func TestGCM(t *testing.T) {
	for name, tc := range map[string]struct{ key, iv, plaintext, aad, sealed string }{
		"14": {
			"0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000",
			"00000000000000000000000000000000", "",
			"cea7403d4d606b6e074ec5d3baf39d18" + "d0d1c8a799996bf0265b98b5d48ab919",
		},
		"16": {
			"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
			"d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
			"feedfacedeadbeeffeedfacedeadbeefabaddad2",
			"522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662" +
				"76fc6ece0f4e1768cddf8853bb2d551b",
		},
	} {
		block, err := aes.NewCipher(unhex(t, tc.key))
		if err != nil {
			t.Fatal(err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			t.Fatal(err)
		}
		if got := aead.Seal(nil, unhex(t, tc.iv), unhex(t, tc.plaintext), unhex(t, tc.aad)); hex.EncodeToString(got) != tc.sealed {
			t.Errorf("case %s: %x", name, got)
		}
	}
}

// TestCTR is NIST SP 800-38A section F.5.5, first block.
func TestCTR(t *testing.T) {
	block, err := aes.NewCipher(unhex(t, "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"))
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, 16)
	cipher.NewCTR(block, unhex(t, "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")).XORKeyStream(out, unhex(t, "6bc1bee22e409f96e93d7e117393172a"))
	if got := hex.EncodeToString(out); got != "601ec313775789a5b7a7f504bbf3d228" {
		t.Errorf("CTR: %s", got)
	}
}

// TestSIV ties Tink's AES-SIV to RFC 5297. The RFC has vectors for AES-128
// only, and Tink accepts AES-256 only; a second implementation, in this file,
// meets both.
func TestSIV(t *testing.T) {
	got := sivSeal(t,
		unhex(t, "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"),
		unhex(t, "112233445566778899aabbccddee"),
		unhex(t, "101112131415161718191a1b1c1d1e1f2021222324252627"))
	if want := "85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c"; hex.EncodeToString(got) != want {
		t.Fatalf("RFC 5297 A.1: %x, want %s", got, want)
	}
	rapid.Check(t, func(r *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 64, 64).Draw(r, "key")
		plaintext := rapid.SliceOf(rapid.Byte()).Draw(r, "plaintext")
		ad := rapid.SliceOf(rapid.Byte()).Draw(r, "ad")
		p, err := daead.NewAESSIV(key)
		if err != nil {
			r.Fatal(err)
		}
		got, err := p.EncryptDeterministically(plaintext, ad)
		if want := sivSeal(t, key, plaintext, ad); err != nil || !bytes.Equal(got, want) {
			r.Fatalf("Tink %x, RFC 5297 %x, %v", got, want, err)
		}
	})
}

// sivSeal is SIV-Encrypt of RFC 5297 section 2.6 with one string of associated
// data.
func sivSeal(t *testing.T, key, plaintext, ad []byte) []byte {
	half := len(key) / 2
	macBlock, err := aes.NewCipher(key[:half])
	if err != nil {
		t.Fatal(err)
	}
	ctrBlock, err := aes.NewCipher(key[half:])
	if err != nil {
		t.Fatal(err)
	}
	// S2V, section 2.4.
	d := cmac(macBlock, make([]byte, 16))
	d = double(d)
	subtle.XORBytes(d, d, cmac(macBlock, ad))
	last := bytes.Clone(plaintext)
	if len(last) >= 16 {
		tail := last[len(last)-16:]
		subtle.XORBytes(tail, tail, d)
	} else {
		last = append(append(last, 0x80), make([]byte, 15-len(last))...)
		subtle.XORBytes(last, last, double(d))
	}
	v := cmac(macBlock, last)
	q := bytes.Clone(v)
	q[8] &= 0x7f
	q[12] &= 0x7f
	out := make([]byte, len(plaintext))
	cipher.NewCTR(ctrBlock, q).XORKeyStream(out, plaintext)
	return append(v, out...)
}

// cmac is AES-CMAC, RFC 4493 section 2.4.
func cmac(b cipher.Block, m []byte) []byte {
	zero := make([]byte, 16)
	b.Encrypt(zero, zero)
	sub := double(zero)
	last := append([]byte(nil), m[max(0, (len(m)-1)/16*16):]...)
	if len(last) < 16 {
		last = append(append(last, 0x80), make([]byte, 15-len(last))...)
		sub = double(sub)
	}
	x := make([]byte, 16)
	for i := 0; i+16 < len(m); i += 16 {
		subtle.XORBytes(x, x, m[i:i+16])
		b.Encrypt(x, x)
	}
	subtle.XORBytes(x, x, last)
	subtle.XORBytes(x, x, sub)
	b.Encrypt(x, x)
	return x
}

// double multiplies by x in GF(2^128), RFC 5297 section 2.3.
func double(in []byte) []byte {
	out := make([]byte, 16)
	var carry byte
	for i := 15; i >= 0; i-- {
		out[i] = in[i]<<1 | carry
		carry = in[i] >> 7
	}
	out[15] ^= 0x87 * carry
	return out
}
