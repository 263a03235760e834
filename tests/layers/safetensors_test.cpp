// Safetensors: what is refused and with which words (those of the Rust library, safetensors 0.8), what is read, what is written.
#include <gtest/gtest.h>

#include <cstring>

#include "layers/model_file.h"
#include "tensor/random.h"
#include "tests/layers/files.h"

namespace vg {
namespace {

using test::message_of;

// length + header + body
std::string file_of(const std::string& header, std::size_t body = 0) {
  const std::uint64_t n = header.size();
  return std::string(reinterpret_cast<const char*>(&n), 8) + header + std::string(body, '\1');
}

Safetensors parse(const std::string& bytes) { return parse_safetensors(std::as_bytes(std::span(bytes.data(), bytes.size())), "f"); }

std::string repeated(const std::string& text, int n) {
  std::string all;
  for (int i = 0; i < n; ++i) all += text;
  return all;
}

std::string u64(std::uint64_t n) { return {reinterpret_cast<const char*>(&n), 8}; }

struct Bad {
  const char* name;
  std::string bytes;
  std::string words;  // in the message
  ErrorCode code = ErrorCode::bad_file;
};

const std::string kTwoFloats = R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})";

std::vector<Bad> bad_files() {
  const auto one = [](const std::string& info) { return R"({"a":)" + info + "}"; };
  const auto u8 = [](const std::string& name, const std::string& range, int n) {
    return "\"" + name + R"(":{"dtype":"U8","shape":[)" + std::to_string(n) + R"(],"data_offsets":[)" + range + "]}";
  };
  return {
      {"S1 empty", "", "header too small"},
      {"S1 seven bytes", "1234567", "header too small"},
      {"S2 length 2^64 - 1", u64(~0ull) + "{}", "header too large"},
      {"S2 length 100,000,001", u64(100'000'001) + "{}", "header too large"},
      {"S3 longer than the file", u64(10) + "{}", "invalid header length"},
      {"S3 longer by one", u64(3) + "{}", "invalid header length"},
      {"S4 no header", file_of(""), "invalid JSON in header"},
      {"S4 text", file_of("hello"), "invalid JSON in header"},
      {"S4 cut", file_of("{\"a\":"), "invalid JSON in header"},
      {"S4 NUL padding", file_of(std::string("{}\0\0", 4)), "invalid JSON in header: NUL"},
      {"S4 two documents", file_of("{}{}"), "invalid JSON in header"},
      {"S4 a list", file_of("[]"), "invalid JSON in header"},
      {"S4 comment", file_of("{/* x */}"), "invalid JSON in header"},
      {"S5 not UTF-8", file_of("{\"\xff\":1}"), "invalid UTF-8 in header"},
      {"S5 lone surrogate", file_of(R"({"\ud800":1})"), "invalid JSON in header"},
      {"S5 byte order mark", file_of("\xef\xbb\xbf{}"), "invalid JSON in header"},
      {"S6 duplicate name", file_of("{\"a\":" + kTwoFloats + ",\"a\":" + kTwoFloats + "}", 8), "the name `a` is given twice"},
      {"S6 duplicate through an escape", file_of("{\"a\":" + kTwoFloats + ",\"\\u0061\":" + kTwoFloats + "}", 8),
       "the name `a` is given twice"},
      {"S6 duplicate field", file_of(one(R"({"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]})"), 1), "duplicate field `dtype`"},
      {"S6 duplicate metadata", file_of(R"({"__metadata__":{"k":"1","k":"2"}})"), "the key `k` is given twice"},
      {"S6 metadata twice", file_of(R"({"__metadata__":{},"__metadata__":{}})"), "given twice"},
      {"S6 leading space", file_of(" {}"), "must begin with an opening brace"},
      {"S7 gap", file_of("{" + u8("a", "0,2", 2) + "," + u8("b", "3,5", 2) + "}", 5), "invalid offset for tensor `b`"},
      {"S7 gap at the start", file_of("{" + u8("a", "1,3", 2) + "}", 3), "invalid offset for tensor `a`"},
      {"S7 reversed", file_of("{" + u8("a", "2,0", 2) + "}", 2), "invalid offset for tensor `a`"},
      {"S7 overlapping", file_of("{" + u8("a", "0,2", 2) + "," + u8("b", "1,3", 2) + "}", 3), "invalid offset for tensor `b`"},
      {"S7 the same bytes twice", file_of("{" + u8("a", "0,2", 2) + "," + u8("b", "0,2", 2) + "}", 2), "invalid offset for tensor `b`"},
      {"S8 negative offset", file_of("{" + u8("a", "-1,2", 2) + "}", 2), "data_offsets holds a negative number"},
      {"S8 minus zero", file_of("{" + u8("a", "-0,2", 2) + "}", 2), "data_offsets holds a negative number"},
      {"S8 float offset", file_of("{" + u8("a", "0.0,2", 2) + "}", 2), "data_offsets holds a floating point number"},
      {"S8 1e23", file_of("{" + u8("a", "0,1e23", 2) + "}", 2), "data_offsets holds a floating point number"},
      {"S8 2^64", file_of("{" + u8("a", "0,18446744073709551616", 2) + "}", 2), "data_offsets holds a floating point number"},
      {"S8 one offset", file_of("{" + u8("a", "0", 2) + "}", 2), "data_offsets wants two numbers"},
      {"S8 three offsets", file_of("{" + u8("a", "0,2,4", 2) + "}", 2), "data_offsets wants two numbers"},
      {"S8 text as extent", file_of(one(R"({"dtype":"U8","shape":["2"],"data_offsets":[0,2]})"), 2), "shape holds a text"},
      {"S8 shape is a number", file_of(one(R"({"dtype":"U8","shape":2,"data_offsets":[0,2]})"), 2), "field `shape` is a number"},
      {"S8 shape within shape", file_of(one(R"({"dtype":"U8","shape":[[2]],"data_offsets":[0,2]})"), 2), "shape holds a list"},
      {"S8 dtype is a number", file_of(one(R"({"dtype":7,"shape":[2],"data_offsets":[0,2]})"), 2), "field `dtype` is a number"},
      {"S8 dtype is an object", file_of(one(R"({"dtype":{},"shape":[2],"data_offsets":[0,2]})"), 2), "field `dtype` is an object"},
      {"S8 the tensor is a text", file_of(R"({"a":"b"})"), "`a`: wanted an object, found a text"},
      {"S8 the tensor is a list", file_of(R"({"a":[]})"), "`a`: wanted an object, found a list"},
      {"S9 body too short", file_of(one(kTwoFloats), 7), "file not fully covered"},
      {"S9 body absent", file_of(one(kTwoFloats), 0), "file not fully covered"},
      {"S9 bytes behind", file_of(one(kTwoFloats), 9), "file not fully covered"},
      {"S9 bytes without tensors", file_of("{}", 1), "file not fully covered"},
      {"S10 too few bytes for the shape", file_of(one(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"), 8),
       "invalid shape, data type, or offset"},
      {"S10 too many", file_of(one(R"({"dtype":"F16","shape":[2],"data_offsets":[0,8]})"), 8), "invalid shape, data type, or offset"},
      {"S10 half a byte", file_of(one(R"({"dtype":"F4","shape":[1],"data_offsets":[0,1]})"), 1), "invalid shape, data type, or offset"},
      {"S11 product beyond 64 bits", file_of(one(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]})"), 8),
       "overflow"},
      {"S11 wraps to 8 bytes", file_of(one(R"({"dtype":"F32","shape":[4611686018427387906,1],"data_offsets":[0,8]})"), 8), "overflow"},
      {"S11 extent 2^63, then 0", file_of(one(R"({"dtype":"U8","shape":[9223372036854775808,0],"data_offsets":[0,0]})")), "overflow"},
      {"S12 unknown dtype", file_of(one(R"({"dtype":"F33","shape":[2],"data_offsets":[0,8]})"), 8), "unknown dtype `F33`"},
      {"S12 dtype in small letters", file_of(one(R"({"dtype":"f32","shape":[2],"data_offsets":[0,8]})"), 8), "unknown dtype `f32`"},
      {"S12 not read", file_of(one(R"({"dtype":"U16","shape":[2],"data_offsets":[0,4]})"), 4), "dtype U16 is not read",
       ErrorCode::unsupported},
      {"S13 no offsets", file_of(one(R"({"dtype":"F32","shape":[2]})"), 8), "missing field `data_offsets`"},
      {"S13 no dtype", file_of(one(R"({"shape":[2],"data_offsets":[0,8]})"), 8), "missing field `dtype`"},
      {"S13 no shape", file_of(one(R"({"dtype":"F32","data_offsets":[0,8]})"), 8), "missing field `shape`"},
      {"S13 empty info", file_of(R"({"a":{}})"), "missing field `dtype`"},
      {"S14 six axes", file_of(one(R"({"dtype":"U8","shape":[1,1,1,1,1,1],"data_offsets":[0,1]})"), 1), "rank 6", ErrorCode::unsupported},
      {"S15 metadata holds a number", file_of(R"({"__metadata__":{"k":1}})"), "`k` is a number, wanted a text"},
      {"S15 metadata holds null", file_of(R"({"__metadata__":{"k":null}})"), "`k` is null, wanted a text"},
      {"S15 metadata holds an object", file_of(R"({"__metadata__":{"k":{}}})"), "`k` is an object, wanted a text"},
      {"S15 metadata is a text", file_of(R"({"__metadata__":"x"})"), "wanted an object, found a text"},
      {"S16 100,000 lists", file_of(repeated("[", 100'000)), "invalid JSON in header"},
      {"S16 in a field nobody knows", file_of(R"({"a":{"x":)" + repeated("[", 100'000)), "recursion limit exceeded"},
      {"S16 objects", file_of(R"({"a":{"x":)" + repeated(R"({"y":)", 100'000)), "recursion limit exceeded"},
      {"I64 that needs 64 bits", file_of(one(R"({"dtype":"I64","shape":[1],"data_offsets":[0,8]})"), 8), "needs more than 32 bits",
       ErrorCode::unsupported},
  };
}

TEST(Safetensors, RefusesBadFiles) {
  test::Folder folder;
  for (const Bad& bad : bad_files()) {
    SCOPED_TRACE(bad.name);
    const std::string message = message_of(bad.code, [&] { parse(bad.bytes); });
    EXPECT_NE(message.find(bad.words), std::string::npos) << message;
    EXPECT_TRUE(message.starts_with("f: ")) << message;
    EXPECT_LT(message.size(), 400u);
    // From a file: the same words behind the file's path.
    test::put_bytes(folder / "bad", bad.bytes);
    EXPECT_EQ(message_of(bad.code, [&] { read_safetensors(folder / "bad"); }), (folder / "bad") + message.substr(1));
  }
}

TEST(Safetensors, LongNamesDoNotFloodMessages) {
  const std::string name(5000, 'n');
  const std::string message = message_of(
      ErrorCode::bad_file, [&] { parse(file_of("{\"" + name + "\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}", 3)); });
  EXPECT_LT(message.size(), 300u);
}

TEST(Safetensors, ReadsWhatTheFormatAllows) {
  EXPECT_TRUE(parse(file_of("{}")).tensors.empty());       // S17
  EXPECT_TRUE(parse(file_of("{}     ")).tensors.empty());  // S4 trailing spaces
  EXPECT_EQ(parse(file_of(R"({"__metadata__":{"k":"v","":"\u00e4"}})")).metadata.at("k"), "v");
  // S13 fields that nobody knows, S14 tensors without elements and scalars; names in another order than the bytes.
  const Safetensors s = parse(file_of(R"({"b":{"dtype":"U8","shape":[],"data_offsets":[8,9],"x":[1,{"y":[[null]]},"z"],"w":{}},)"
                                      R"("none":{"dtype":"F32","shape":[0,3],"data_offsets":[0,0]},"a":)" +
                                          kTwoFloats + "}",
                                      9));
  ASSERT_EQ(s.tensors.size(), 3u);
  EXPECT_EQ(s.tensors[0].first, "none");
  EXPECT_EQ(s.tensors[0].second.shape(), (Shape{0, 3}));
  EXPECT_EQ(s.tensors[1].first, "a");
  EXPECT_EQ(s.tensors[1].second.data<float>()[1], std::bit_cast<float>(0x01010101u));
  EXPECT_EQ(s.find("b")->shape().rank(), 0);
  EXPECT_EQ(s.find("b")->data<std::uint8_t>()[0], 1);
  EXPECT_EQ(s.find("c"), nullptr);
}

TEST(Safetensors, ConvertsDoublesAndLongIntegers) {
  const double doubles[] = {1.5, -0.1, 1e300};
  const std::int64_t longs[] = {-2147483648, 2147483647};
  std::string bytes =
      file_of(R"({"d":{"dtype":"F64","shape":[3],"data_offsets":[0,24]},"l":{"dtype":"I64","shape":[2],"data_offsets":[24,40]}})");
  bytes.append(reinterpret_cast<const char*>(doubles), 24).append(reinterpret_cast<const char*>(longs), 16);
  const Safetensors s = parse(bytes);
  EXPECT_EQ(to_host<float>(*s.find("d")), (std::vector<float>{1.5f, -0.1f, HUGE_VALF}));
  EXPECT_EQ(to_host<std::int32_t>(*s.find("l")), (std::vector<std::int32_t>{-2147483647 - 1, 2147483647}));
}

Safetensors sample() {
  Safetensors s;
  s.metadata = {{"note", "a \"quoted\" \\ text\nwith \x01 and \xc3\xa4"}, {"", "empty key"}};
  Tensor u8({3}, DType::u8, kCpu), bf({2, 1}, DType::bf16, kCpu), half({1}, DType::f16, kCpu);
  for (int i = 0; i < 3; ++i) u8.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(250 + i);
  for (int i = 0; i < 2; ++i) bf.data<bf16>()[i] = bf16::from(1.5f - static_cast<float>(i));
  half.data<f16>()[0] = f16::from(-0.25f);
  s.tensors = {{"u8", u8},
               {"bf", bf},
               {"f32", from_host(std::vector<float>{1, 2, 3, 4, 5, 6}, {1, 2, 3, 1, 1})},
               {"half", half},
               {"name \"with\" quotes", from_host(std::vector<std::int32_t>{-7}, {})},
               {"nothing", Tensor({0}, DType::f32, kCpu)}};
  return s;
}

TEST(Safetensors, WhatIsWrittenIsRead) {
  test::Folder folder;
  const Safetensors s = sample();
  write_safetensors(folder / "a", s);
  const std::string bytes = test::bytes_of(folder / "a");
  std::uint64_t n;
  std::memcpy(&n, bytes.data(), 8);
  EXPECT_EQ(n % 8, 0u);
  const Safetensors r = read_safetensors(folder / "a");
  EXPECT_EQ(r.metadata, s.metadata);
  EXPECT_EQ(read_safetensors_metadata(folder / "a"), s.metadata);
  std::vector<std::string> names;
  for (const auto& [name, t] : r.tensors) {
    names.push_back(name);
    const Tensor& before = *s.find(name);
    EXPECT_EQ(t.shape(), before.shape());
    ASSERT_EQ(t.dtype(), before.dtype());
    EXPECT_TRUE(t.bytes() == 0 || std::memcmp(t.raw(), before.raw(), t.bytes()) == 0) << name;
  }
  // Wide elements first, so that all are aligned.
  EXPECT_EQ(names, (std::vector<std::string>{"f32", "name \"with\" quotes", "nothing", "bf", "half", "u8"}));
  // Written again, the bytes are the same.
  write_safetensors(folder / "b", r);
  EXPECT_EQ(test::bytes_of(folder / "b"), bytes);
}

TEST(Safetensors, RefusesToWriteWhatItWouldNotRead) {
  test::Folder folder;
  const Tensor t = from_host(std::vector<float>{1}, {1});
  const auto message = [&](const Safetensors& s) {
    return message_of(ErrorCode::invalid_argument, [&] { write_safetensors(folder / "x", s); });
  };
  EXPECT_NE(message({{{"a", t}, {"a", t}}, {}}).find("two tensors"), std::string::npos);
  EXPECT_NE(message({{{"__metadata__", t}}, {}}).find("two tensors"), std::string::npos);
  EXPECT_NE(message({{{"a", Tensor()}}, {}}).find("undefined"), std::string::npos);
  EXPECT_NE(message({{{"\xff", t}}, {}}).find("not UTF-8"), std::string::npos);
  EXPECT_NE(message({{}, {{"k", "\xff"}}}).find("not UTF-8"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(folder / "x"));
}

// S18: the file that is being read may be replaced, by us or by another program, without harm to either.
TEST(Safetensors, SavingOverTheFileThatWasRead) {
  test::Folder folder;
  write_safetensors(folder / "a", sample());
  const Safetensors r = read_safetensors(folder / "a");
  for (int i = 0; i < 3; ++i) write_safetensors(folder / "a", r);
  EXPECT_EQ(to_host<float>(*read_safetensors(folder / "a").find("f32")), (std::vector<float>{1, 2, 3, 4, 5, 6}));
}

TEST(Safetensors, EveryCutOfAFileIsRefused) {
  test::Folder folder;
  write_safetensors(folder / "a", sample());
  const std::string bytes = test::bytes_of(folder / "a");
  for (std::size_t n = 0; n < bytes.size(); ++n) EXPECT_THROW(parse(bytes.substr(0, n)), Error) << n;
}

// No byte of the header may do harm: either it is refused with an Error, or it is read.
TEST(Safetensors, DamagedHeadersNeverCrash) {
  test::Folder folder;
  write_safetensors(folder / "a", sample());
  const std::string bytes = test::bytes_of(folder / "a");
  Random random(7);
  int refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string damaged = bytes;
    for (std::uint32_t k = 0; k <= random.below(3); ++k)
      damaged[random.below(static_cast<std::uint32_t>(bytes.size()))] = static_cast<char>(random.bits());
    try {
      parse(damaged);
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 10'000);
  EXPECT_LT(refused, 20'000);
}

TEST(Safetensors, MissingFileAndFolder) {
  test::Folder folder;
  EXPECT_NE(message_of(ErrorCode::io, [&] { read_safetensors(folder / "no"); }).find("No such file"), std::string::npos);
  message_of(ErrorCode::bad_file, [&] { read_safetensors(folder / "."); });
  message_of(ErrorCode::io, [&] { write_safetensors(folder / "no/a", sample()); });
}

}  // namespace
}  // namespace vg
