// Strict JSON: the parser's callback sees keys and depth before the value is built.
#include "layers/json.h"

#include <vector>

namespace vg {
namespace {

constexpr int kMaxDepth = 128;

// Values in messages must not flood a terminal.
std::string shortened(std::string text) {
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where) {
  std::vector<std::set<std::string>> open;  // keys seen in each object that is open
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth) fail(ErrorCode::bad_file, "{}: nested deeper than {}", where, kMaxDepth);
    if (event == Json::parse_event_t::object_start) open.emplace_back();
    if (event == Json::parse_event_t::object_end) open.pop_back();
    if (event == Json::parse_event_t::key && !open.back().insert(parsed.get<std::string>()).second)
      fail(ErrorCode::bad_file, "{}: the key {} is given twice", where,
           shortened(parsed.dump(-1, ' ', true, Json::error_handler_t::replace)));
    return true;
  };
  // The library takes a NUL byte for the end of the text.
  if (const std::size_t nul = text.find('\0'); nul != std::string_view::npos)
    fail(ErrorCode::bad_file, "{}: not JSON: NUL at byte {}", where, nul);
  try {
    return Json::parse(text.begin(), text.end(), watch);
  } catch (const Json::exception& e) {
    const std::string message = e.what();  // "[json.exception.parse_error.101] parse error at line ..."
    const std::size_t bracket = message.find("] ");
    fail(ErrorCode::bad_file, "{}: not JSON: {}", where, message.substr(bracket == std::string::npos ? 0 : bracket + 2, 200));
  }
}

JsonFields::JsonFields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object.is_object()) fail(ErrorCode::bad_file, "{}: wanted an object, found {}", where_, object.type_name());
}

const Json& JsonFields::json(const std::string& key) {
  known_.insert(key);
  const auto found = object_.find(key);
  if (found == object_.end()) fail(ErrorCode::bad_file, "{}: \"{}\" is missing", where_, key);
  return *found;
}

void JsonFields::done() const {
  for (const auto& item : object_.items()) {
    if (known_.count(item.key())) continue;
    std::string known;
    for (const std::string& k : known_) known += (known.empty() ? "" : ", ") + k;
    fail(ErrorCode::bad_file, "{}: unknown key \"{}\" (known: {})", where_, shortened(item.key()), known);
  }
}

void JsonFields::refuse(const std::string& key, const char* wanted, const Json& found) const {
  fail(ErrorCode::bad_file, "{}: \"{}\" is {}, wanted {}", where_, key,
       shortened(found.dump(-1, ' ', true, Json::error_handler_t::replace)), wanted);
}

}  // namespace vg
