// Reading JSON that others wrote: nothing is guessed. A key that nobody knows, a key given twice, a missing or mistyped one, deep nesting: each is
// refused with the place where it stands.
#pragma once
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensor/error.h"

namespace vg {

using Json = nlohmann::json;

// Refuses duplicate keys and nesting beyond 128, which the library would take. Throws bad_file; `where` opens the message.
Json parse_json(std::string_view text, const std::string& where);

// The members of one object, each to be asked for by name; done() refuses what nobody asked for.
class JsonFields {
 public:
  JsonFields(const Json& object, std::string where);  // refers to `object`
  JsonFields(Json&&, std::string) = delete;           // which must live on

  bool has(const std::string& key) {
    known_.insert(key);
    return object_.contains(key);
  }
  // The member as T. Throws bad_file if it is missing or of another type.
  template <class T>
  T get(const std::string& key) {
    known_.insert(key);
    const auto found = object_.find(key);
    if (found == object_.end()) fail(ErrorCode::bad_file, "{}: \"{}\" is missing", where_, key);
    return convert<T>(*found, key);
  }
  // The same, leaving `value` as it is if there is none.
  template <class T>
  void get_to(const std::string& key, T& value) {
    if (has(key)) value = convert<T>(object_.at(key), key);
  }
  const Json& json(const std::string& key);                    // any type; missing: throws
  void ignore(const std::string& key) { known_.insert(key); }  // known, and of no use here
  void done() const;                                           // throws bad_file naming the first unknown member and the known ones
  // done(), then check(), whose complaint about the values becomes one about the file.
  template <class Check>
  void done(Check&& check) const {
    done();
    try {
      check();
    } catch (const Error& e) {
      fail(ErrorCode::bad_file, "{}: {}", where_, e.what());
    }
  }
  const std::string& where() const { return where_; }

 private:
  template <class T>
  T convert(const Json& j, const std::string& key) const {
    // The library would turn 1.5 into the int 1, true into 1, and 300 into a small type's 44.
    if constexpr (std::is_same_v<T, bool>) {
      if (!j.is_boolean()) refuse(key, "true or false", j);
    } else if constexpr (std::is_integral_v<T>) {
      const bool fits = j.is_number_unsigned() ? std::in_range<T>(j.get<std::uint64_t>())
                                               : j.is_number_integer() && std::in_range<T>(j.get<std::int64_t>());
      if (!fits) refuse(key, "an integer in range", j);
    } else if constexpr (std::is_floating_point_v<T>) {
      if (!j.is_number()) refuse(key, "a number", j);
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (!j.is_string()) refuse(key, "a text", j);
    } else {  // a vector
      if (!j.is_array()) refuse(key, "a list", j);
      T list;
      for (const Json& item : j) list.push_back(convert<typename T::value_type>(item, key));
      return list;
    }
    return j.get<T>();
  }
  [[noreturn]] void refuse(const std::string& key, const char* wanted, const Json& found) const;

  const Json& object_;
  std::string where_;
  std::set<std::string> known_;
};

}  // namespace vg
