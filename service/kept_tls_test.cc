#include "service/kept_tls.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "engine/state/test_keeping_vault.h"

namespace statehouse {
namespace {

const TlsFiles kFiles{"/x/s.pem", "/x/s.key", "/x/ca.pem"};

// Of the bytes, as if a daemon had kept them.
std::optional<TlsTexts> Read(const std::string& bytes) {
  InheritedDescriptors kept;
  kept["tls"].Reset(memfd_create("kept-tls-test", MFD_CLOEXEC));
  EXPECT_EQ(pwrite(kept["tls"].get(), bytes.data(), bytes.size(), 0),
            static_cast<ssize_t>(bytes.size()));
  return TakeKeptTls(kFiles, &kept);
}

TEST(KeptTlsTest, TheNextDaemonFindsWhatWasKeptLast) {
  KeepingVault vault;
  const TlsTexts first{"certificate", "key", "authorities"};
  const TlsTexts last{std::string(kTlsFileBytesMax, 'c'), std::string(kTlsFileBytesMax, 'k'),
                      std::string(kTlsFileBytesMax, 'a')};
  ASSERT_TRUE(KeepTls(kFiles, first, &vault).ok());
  ASSERT_TRUE(KeepTls(kFiles, last, &vault).ok());
  struct stat facts {};
  ASSERT_EQ(fstat(vault.kept["tls"].get(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777u, 0600u);

  EXPECT_EQ(TakeKeptTls(kFiles, &vault.kept), last);
  EXPECT_TRUE(vault.kept.empty());
}

TEST(KeptTlsTest, WhatIsOfOtherFilesIsLeftToBeRemoved) {
  for (const TlsFiles& others : {TlsFiles{"/y/s.pem", "/x/s.key", "/x/ca.pem"},
                                 TlsFiles{"/x/s.pem", "/y/s.key", "/x/ca.pem"},
                                 TlsFiles{"/x/s.pem", "/x/s.key", ""}, TlsFiles{}}) {
    KeepingVault vault;
    ASSERT_TRUE(KeepTls(kFiles, {"certificate", "key", "authorities"}, &vault).ok());
    EXPECT_EQ(TakeKeptTls(others, &vault.kept), std::nullopt);
    EXPECT_EQ(vault.kept.count("tls"), 1u);
  }
}

TEST(KeptTlsTest, DamagedMemoryHoldsNothing) {
  const std::string good = "8\n/x/s.pem8\n/x/s.key9\n/x/ca.pem1\nc1\nk1\na";
  EXPECT_EQ(Read(good), (TlsTexts{"c", "k", "a"}));
  for (size_t bytes = 0; bytes < good.size(); ++bytes) {
    EXPECT_EQ(Read(good.substr(0, bytes)), std::nullopt) << bytes;
  }
  for (const char* damaged : {"8\n/x/s.pem8\n/x/s.key9\n/x/ca.pem1\nc1\nk1\na1\nx", "x", "-1\n",
                              "99999999999999999999\n", "18446744073709551615\n"}) {
    EXPECT_EQ(Read(damaged), std::nullopt) << damaged;
  }
  InheritedDescriptors nothing;
  EXPECT_EQ(TakeKeptTls(kFiles, &nothing), std::nullopt);
}

}  // namespace
}  // namespace statehouse
