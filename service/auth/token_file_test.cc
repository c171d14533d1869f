#include "service/auth/token_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <thread>

namespace statehouse {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// A folder of its own for each test, removed at its end.
class TokenFileTest : public ::testing::Test {
 protected:
  TokenFileTest() {
    char pattern[] = "/tmp/sh_tokens_XXXXXX";
    folder_ = ::mkdtemp(pattern);
    path_ = folder_ + "/tokens.toml";
  }
  ~TokenFileTest() override { std::filesystem::remove_all(folder_); }

  std::string Text() const {
    std::ifstream file(path_);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
  void SetText(const std::string& text) const { std::ofstream(path_) << text; }
  static Grant G(std::string_view text) { return ParseGrant(text).value(); }

  std::string folder_;
  std::string path_;
};

constexpr char kHash[] = "\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"";

TEST_F(TokenFileTest, CreatedTokenStandsInTheFileAsHashOnly) {
  const StatusOr<std::string> token =
      CreateToken(path_, {"the \"web\" workers", 1'800'000'000, {G("area:web/*:read,write")}});

  ASSERT_TRUE(token.ok()) << token.status().ToString();
  TokenParts parts;
  ASSERT_TRUE(SplitToken(*token, &parts));
  EXPECT_THAT(Text(), Not(HasSubstr(std::string(parts.secret))));
  const auto records = ListTokens(path_);
  ASSERT_TRUE(records.ok()) << records.status().ToString();
  ASSERT_EQ(records->size(), 1u);
  EXPECT_EQ((*records)[0].id, parts.id);
  EXPECT_EQ((*records)[0].hash, HashSecret(parts.secret));
  EXPECT_EQ((*records)[0].description, "the \"web\" workers");
  EXPECT_EQ((*records)[0].expires_unix_s, 1'800'000'000);
  ASSERT_EQ((*records)[0].grants.size(), 1u);
  EXPECT_EQ(FormatGrant((*records)[0].grants[0]), "area:web/*:read,write");
  struct stat facts = {};
  ASSERT_EQ(::stat(path_.c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777, 0600u);
}

TEST_F(TokenFileTest, RevokeKeepsOtherEntriesAndTheirComments) {
  ASSERT_TRUE(CreateToken(path_, {"first", 0, {G("area:a:read")}}).ok());
  SetText(Text() + "\n# about the second\n");
  ASSERT_TRUE(CreateToken(path_, {"second", 0, {G("area:b:read")}}).ok());
  ASSERT_TRUE(CreateToken(path_, {"third", 0, {G("service:*:admin")}}).ok());
  const auto before = ListTokens(path_);
  ASSERT_EQ(before->size(), 3u);

  ASSERT_TRUE(RevokeToken(path_, (*before)[0].id).ok());

  EXPECT_THAT(Text(), HasSubstr("# about the second"));
  auto after = ListTokens(path_);
  ASSERT_EQ(after->size(), 2u);
  EXPECT_EQ((*after)[0].description, "second");
  ASSERT_TRUE(RevokeToken(path_, (*after)[1].id).ok());
  after = ListTokens(path_);
  ASSERT_EQ(after->size(), 1u);
  EXPECT_EQ((*after)[0].description, "second");
  EXPECT_EQ(RevokeToken(path_, (*before)[0].id).reason(), Reason::kInvalidArgument);
}

TEST_F(TokenFileTest, RevokeRefusesAFileOfAnotherShapeAndLeavesIt) {
  const std::string text = "token = [{id = \"aaaaaaaa\", hash = " + std::string(kHash) +
                           "}, {id = \"bbbbbbbb\", hash = " + kHash + "}]\n";
  SetText(text);

  EXPECT_EQ(RevokeToken(path_, "aaaaaaaa").reason(), Reason::kConfigInvalid);

  EXPECT_EQ(Text(), text);
}

TEST_F(TokenFileTest, ConcurrentCreatesLoseNothing) {
  constexpr int kEach = 10;
  const auto create = [this] {
    for (int i = 0; i < kEach; ++i) {
      EXPECT_TRUE(CreateToken(path_, {"", 0, {G("area:*:read")}}).ok());
    }
  };

  std::thread other(create);
  create();
  other.join();

  EXPECT_EQ(ListTokens(path_)->size(), 2u * kEach);
}

TEST_F(TokenFileTest, SpecThatTheReaderWouldRefuseIsRefused) {
  const TokenSpec specs[] = {
      {"no grants", 0, {}},
      {std::string(257, 'x'), 0, {G("area:a:read")}},
      {"negative", -1, {G("area:a:read")}},
      {"empty pattern", 0, {Grant{ObjectKind::kArea, "", 1}}},
      {"no verbs", 0, {Grant{ObjectKind::kArea, "a", 0}}},
      {"\xff\xfe", 0, {G("area:a:read")}},
  };

  for (const TokenSpec& spec : specs) {
    EXPECT_FALSE(CreateToken(path_, spec).ok()) << spec.description;
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(TokenFileTest, LimitsOfCallsAreKeptWithinTheirBounds) {
  TokenSpec spec{"", 0, {ParseGrant("area:*:read").value()}, kCallsPerSecondMax, kCallsAtOnceMax};
  ASSERT_TRUE(CreateToken(path_, spec).ok());
  spec.calls_per_second = 0;
  spec.calls_at_once.reset();
  ASSERT_TRUE(CreateToken(path_, spec).ok());
  const auto records = ListTokens(path_);
  ASSERT_TRUE(records.ok()) << records.status().ToString();
  EXPECT_EQ((*records)[0].calls_per_second, kCallsPerSecondMax);
  EXPECT_EQ((*records)[0].calls_at_once, kCallsAtOnceMax);
  EXPECT_EQ((*records)[1].calls_per_second, 0u);
  EXPECT_EQ((*records)[1].calls_at_once, std::nullopt);

  spec.calls_per_second = kCallsPerSecondMax + 1;
  EXPECT_EQ(CreateToken(path_, spec).status().reason(), Reason::kInvalidArgument);
  spec.calls_per_second.reset();
  spec.calls_at_once = kCallsAtOnceMax + 1;
  EXPECT_EQ(CreateToken(path_, spec).status().reason(), Reason::kInvalidArgument);
  for (const char* const line : {"calls_per_second = -1", "calls_at_once = 1000001",
                                 "calls_per_second = 100000001", "calls_at_once = \"7\""}) {
    const std::string text =
        "[[token]]\nid = \"abcdefgh\"\nhash = \"" + std::string(64, '0') + "\"\n" + line + "\n";
    const Status refused = ParseTokens(text, "t").status();
    EXPECT_EQ(refused.reason(), Reason::kConfigInvalid) << line;
    EXPECT_THAT(refused.message(), HasSubstr("must be a number from 0 to")) << line;
  }
}

TEST_F(TokenFileTest, MissingFileListsNothing) { EXPECT_TRUE(ListTokens(path_)->empty()); }

TEST_F(TokenFileTest, UnreadablePathIsBackingInvalid) {
  EXPECT_EQ(ListTokens(folder_).status().reason(), Reason::kBackingInvalid);
  EXPECT_EQ(CreateToken(folder_ + "/none/t.toml", {"", 0, {G("area:a:read")}}).status().reason(),
            Reason::kBackingInvalid);
}

struct BadFile {
  const char* text;
  const char* message;
};

TEST(ParseTokensTest, RefusesWithFileAndLine) {
  const std::string head = "\n[[token]]\nid = \"aaaaaaaa\"\nhash = " + std::string(kHash) + "\n";
  const BadFile cases[] = {
      {"x = ", "t.toml:5:5"},
      {"surprise = 1", "t.toml:5:12: unknown key \"surprise\""},
      {"expires = 2027-01-01T00:00:00", "expires needs an offset"},
      {"expires = \"soon\"", "t.toml:5:11: expires"},
      {"grants = [{kind = \"area\", pattern = \"*\", verbs = [\"fly\"]}]", "\"fly\""},
      {"grants = [{kind = \"area\", pattern = \"*\", verbs = [\"x:read\"]}]", "of its own"},
      {"grants = [{kind = \"moon\", pattern = \"*\", verbs = [\"read\"]}]", "the kind"},
      {"grants = [{kind = \"area\", pattern = \"*\", verbs = []}]", "verb"},
      {"grants = [{kind = \"area\", pattern = \"*\", verb = [\"read\"]}]", "unknown key"},
      {"grants = 3", "grants must be"},
      {"description = 3", "description must be a string"},
      {"[[token]]\nid = \"aaaaaaaa\"\nhash = "
       "\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"",
       "stands twice"},
      {"[[token]]\nid = \"bbbbbbbb\"", "hash is missing"},
      {"[[token]]\nhash = \"00\"", "hash must be"},
      {"[[token]]\nid = \"short\"", "8 characters"},
      {"[network]\nlisten = 1", "unknown key \"network\""},
  };
  for (const BadFile& bad : cases) {
    const auto parsed = ParseTokens(head + bad.text, "t.toml");
    ASSERT_FALSE(parsed.ok()) << bad.text;
    EXPECT_EQ(parsed.status().reason(), Reason::kConfigInvalid);
    EXPECT_THAT(parsed.status().message(), HasSubstr("t.toml:")) << bad.text;
    EXPECT_THAT(parsed.status().message(), HasSubstr(bad.message)) << bad.text;
  }
  EXPECT_TRUE(ParseTokens(head, "t.toml").ok());
}

TEST(ParseTokensTest, ReadsDatesOfTomlAndStrings) {
  const std::string head = "[[token]]\nid = \"aaaaaaaa\"\nhash = " + std::string(kHash) + "\n";
  for (const char* expires : {"2027-01-31T12:00:00Z", "\"2027-01-31T12:00:00Z\"",
                              "2027-01-31T14:00:00+02:00", "\"2027-01-31T06:30:00-05:30\""}) {
    const auto parsed = ParseTokens(head + "expires = " + expires, "t.toml");
    ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
    EXPECT_EQ((*parsed)[0].expires_unix_s, 1'801'396'800) << expires;
  }
}

TEST(TimestampTest, RoundTripsAndRefusesWhatIsNoTime) {
  EXPECT_EQ(FormatTimestamp(1'801'396'800), "2027-01-31T12:00:00Z");
  EXPECT_EQ(*ParseTimestamp(FormatTimestamp(1'709'164'799)), 1'709'164'799);
  EXPECT_TRUE(ParseTimestamp("2028-02-29T00:00:00.25Z").ok());
  for (const char* bad : {"", "2027", "2027-02-29T00:00:00Z", "2027-13-01T00:00:00Z",
                          "2027-01-01T24:00:00Z", "2027-01-01T00:00:00", "2027-01-01T00:00:00.Z",
                          "2027-01-01T00:00:00+2:00", "2027-01-01X00:00:00Z"}) {
    EXPECT_EQ(ParseTimestamp(bad).status().reason(), Reason::kConfigInvalid) << bad;
  }
}

TEST(GrantTest, TextRoundTrips) {
  for (const char* text :
       {"area:web/*:read,write", "service:*:admin", "area:a:b:read",
        "area:*:read,write,create,watch,lock,admin", "lock:deploy/*:read,lock"}) {
    const auto grant = ParseGrant(text);
    ASSERT_TRUE(grant.ok()) << grant.status().ToString();
    EXPECT_EQ(FormatGrant(*grant), text);
  }
  for (const char* text : {"", "area", "area:x", "area::read", "area:x:", "area:x:read,",
                           "moon:x:read", "area:x:reed"}) {
    EXPECT_EQ(ParseGrant(text).status().reason(), Reason::kConfigInvalid) << text;
  }
}

TEST(PatternTest, StarStandsForAnyRun) {
  struct Row {
    const char* pattern;
    const char* name;
    bool matches;
  };
  const Row rows[] = {
      {"*", "", true},
      {"*", "anything", true},
      {"web/*", "web/", true},
      {"web/*", "web/a", true},
      {"web/*", "web", false},
      {"web/*", "xweb/a", false},
      {"*/count", "a/count", true},
      {"*/count", "a/counts", false},
      {"a*b*c", "abc", true},
      {"a*b*c", "aXbYc", true},
      {"a*b*c", "aXbY", false},
      {"a*b*c", "acb", false},
      {"**", "x", true},
      {"a", "a", true},
      {"a", "A", false},
      {"a", "", false},
      {"", "", true},
      {"", "a", false},
      {"*a", "aaaa", true},
      {"*ab", "aaab", true},
      {"*ab*", "aaba", true},
      {"a?c", "abc", false},
      {"a.c", "abc", false},
      {"[a]", "a", false},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(PatternMatches(row.pattern, row.name), row.matches)
        << row.pattern << " against " << row.name;
  }
}

TEST(PatternTest, ManyStarsStayFast) {
  // Quadratic at most: an exponential matcher would not come back from this.
  std::string pattern;
  for (int i = 0; i < 100; ++i) pattern += "a*";

  EXPECT_FALSE(PatternMatches(pattern + "b", std::string(255, 'a')));
}

TEST(SplitTokenTest, TakesOneFormOnly) {
  const std::string secret(43, 's');
  TokenParts parts;
  const std::string good = "sh1_abcdefgh_" + secret;
  EXPECT_TRUE(SplitToken(good, &parts));
  EXPECT_EQ(parts.id, "abcdefgh");
  EXPECT_EQ(parts.secret, secret);
  for (const std::string& bad :
       {std::string(), "sh2_abcdefgh_" + secret, "sh1_abcdefgh-" + secret,
        "sh1_abcdefgh_" + secret + "s", "sh1_abcdefg_" + secret, std::string("sh1_abcdefgh_")}) {
    EXPECT_FALSE(SplitToken(bad, &parts)) << bad;
  }
}

// What a random edit leaves of a file is refused with its place, or taken, and then one entry can
// be revoked without touching another, or the file stays as it was.
TEST_F(TokenFileTest, RandomMutationsAreParsedOrRefusedAndRevokeNothingElse) {
  const auto entry = [](const std::string& id, const std::string& rest) {
    return "[[token]]\nid = \"" + id + "\"\nhash = " + kHash + "\n" + rest + "\n";
  };
  const std::string seed_text =
      "# Who may do what.\n" + entry("aaaaaaaa", "description = \"a [[token]] # no comment\"") +
      entry("bbbbbbbb",
            "expires = 2040-01-31T12:00:00Z\ngrants = [\n  {kind = \"area\", "
            "pattern = \"web/*\", verbs = [\"read\", \"write\"]},\n]") +
      entry("cccccccc", "description = \"\"\"\nlines\n[[token]]\n\"\"\"");
  const auto ids = [](const std::vector<TokenRecord>& records) {
    std::vector<std::string> found;
    for (const TokenRecord& record : records) found.push_back(record.id);
    return found;
  };
  std::mt19937 random(20'261'121);
  int parsed = 0;
  int revoked = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string text = seed_text;
    for (uint32_t edits = 1 + random() % 3; edits > 0; --edits) {
      const size_t at = random() % text.size();
      switch (random() % 4) {
        case 0: text[at] = static_cast<char>(random()); break;
        case 1: text.erase(at, 1 + random() % 20); break;
        case 2: text.insert(at, text.substr(random() % text.size(), random() % 60)); break;
        default: text[at] = "\"[]{}=#,.\n"[random() % 10]; break;
      }
    }
    const auto records = ParseTokens(text, "m.toml");
    if (!records.ok()) {
      ASSERT_EQ(records.status().reason(), Reason::kConfigInvalid);
      ASSERT_THAT(records.status().message(), HasSubstr("m.toml:")) << text;
      continue;
    }
    ++parsed;
    if (records->empty()) continue;
    SetText(text);
    const std::string victim = (*records)[random() % records->size()].id;
    const Status status = RevokeToken(path_, victim);
    if (!status.ok()) {
      ASSERT_EQ(Text(), text) << status.ToString();
      continue;
    }
    ++revoked;
    std::vector<std::string> expected = ids(*records);
    std::erase(expected, victim);
    const auto left = ListTokens(path_);
    ASSERT_TRUE(left.ok()) << left.status().ToString() << "\n" << text;
    ASSERT_EQ(ids(*left), expected) << text;
  }
  EXPECT_GT(parsed, 300);
  EXPECT_LT(parsed, 19'000);
  EXPECT_GT(revoked, 100);
}

}  // namespace
}  // namespace statehouse
