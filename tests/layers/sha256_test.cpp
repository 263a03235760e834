// SHA-256 against the vectors of FIPS 180-4 (csrc.nist.gov, SHA256.pdf) and Python's hashlib.
#include "layers/sha256.h"

#include <gtest/gtest.h>

namespace vg {
namespace {

std::string hash(std::string_view text) { return sha256_hex(std::as_bytes(std::span(text.data(), text.size()))); }

TEST(Sha256, KnownVectors) {
  EXPECT_EQ(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hash(std::string(1'000'000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, EveryLengthAroundABlock) {
  // One hash over the hashes of 0 .. 199 times 'x'. Python: hashlib.sha256("".join(hashlib.sha256(b"x"*n).hexdigest() for n in range(200))...)
  std::string all;
  for (std::size_t n = 0; n < 200; ++n) all += hash(std::string(n, 'x'));
  EXPECT_EQ(hash(all), "f61ffcc417e1f0e59eba2da7fa32fbe05b64e478b68c6bacf990455f00248b98");
}

TEST(Sha256, PiecesGiveTheSameAsTheWhole) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += static_cast<char>(i * 7);
  for (std::size_t piece : {1u, 3u, 17u, 63u, 64u, 65u, 128u, 500u}) {
    Sha256 sha;
    for (std::size_t at = 0; at < text.size(); at += piece) sha.update(std::string_view(text).substr(at, piece));
    EXPECT_EQ(sha.hex(), hash(text)) << piece;
  }
}

TEST(Sha256, LengthsAreEightBytesLittleEndian) {
  Sha256 sha;
  sha.update_u64(0x0102030405060708u);
  EXPECT_EQ(sha.hex(), hash("\x08\x07\x06\x05\x04\x03\x02\x01"));
}

}  // namespace
}  // namespace vg
