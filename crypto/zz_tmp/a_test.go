package zz
import ("testing"
 "crypto/aes";"crypto/cipher";"crypto/hkdf";"crypto/sha256";"crypto/rand";"crypto/hmac"
)
var info=make([]byte,130); var key=make([]byte,32)
func BenchmarkHKDF(b *testing.B){b.ReportAllocs();for b.Loop(){ hkdf.Expand(sha256.New,key,string(info),64)}}
func BenchmarkHMACReset(b *testing.B){b.ReportAllocs();h:=hmac.New(sha256.New,key);var o [64]byte;for b.Loop(){ h.Reset();h.Write(info);h.Sum(o[:0]); h.Reset();h.Write(o[:32]);h.Write(info);h.Sum(o[:32])}}
func BenchmarkGCM(b *testing.B){b.ReportAllocs();pt:=make([]byte,1024);dst:=make([]byte,0,2000);for b.Loop(){ c,_:=aes.NewCipher(key);g,_:=cipher.NewGCM(c);g.Seal(dst,make([]byte,12),pt,info[:60])}}
func BenchmarkRand(b *testing.B){b.ReportAllocs();pt:=make([]byte,20);for b.Loop(){ rand.Read(pt)}}
