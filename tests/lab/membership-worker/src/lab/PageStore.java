package lab;

import alluxio.conf.AlluxioConfiguration;
import alluxio.conf.PropertyKey;

import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.io.IOException;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.nio.file.StandardCopyOption;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.List;

/**
 * The folders of the page store, in one of which the lab's worker keeps each file that it read.
 *
 * As in upstream's {@code LocalCacheManager}: a folder that is missing is made; when that fails, no
 * folder is used. A file that cannot be kept is read all the same.
 */
final class PageStore {
  private static final Logger LOG = LoggerFactory.getLogger(PageStore.class);

  private final List<Path> mDirs = new ArrayList<>();
  private boolean mInUse = true;

  private PageStore() {}

  static PageStore open(AlluxioConfiguration conf) {
    PageStore store = new PageStore();
    for (String name : conf.getList(PropertyKey.WORKER_PAGE_STORE_DIRS)) {
      Path dir = Paths.get(name, conf.get(PropertyKey.WORKER_PAGE_STORE_TYPE).toString());
      try {
        Files.createDirectories(dir);
      } catch (IOException e) {
        LOG.error("Cache is in NOT_IN_USE.");
        LOG.error("Failed to restore LocalCacheManager", e);
        store.mInUse = false;
      }
      store.mDirs.add(dir);
    }
    if (store.mInUse) {
      LOG.info("Cache is in READ_WRITE.");
    }
    return store;
  }

  /** Whether all of a file of the under store is here. An empty file is never. */
  boolean holds(Path source) throws IOException {
    Path copy = copyOf(source);
    return mInUse && Files.exists(copy) && Files.size(copy) > 0
        && Files.size(copy) == Files.size(source);
  }

  /** The file's content, taken from the under store first where it is not here yet. */
  byte[] read(Path source) throws IOException {
    if (!mInUse) {
      return Files.readAllBytes(source);
    }
    Path copy = copyOf(source);
    if (!holds(source)) {
      try {
        Path part = Files.createTempFile(copy.getParent(), "lab-", ".part");
        Files.copy(source, part, StandardCopyOption.REPLACE_EXISTING);
        Files.move(part, copy, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
      } catch (IOException e) {
        LOG.warn("Failed to write {}: {}", copy, e.toString());
        return Files.readAllBytes(source);
      }
    }
    return Files.readAllBytes(copy);
  }

  private Path copyOf(Path source) {
    try {
      byte[] hash = MessageDigest.getInstance("SHA-256")
          .digest(source.toString().getBytes(StandardCharsets.UTF_8));
      BigInteger number = new BigInteger(1, hash);
      int dir = number.mod(BigInteger.valueOf(mDirs.size())).intValue();
      return mDirs.get(dir).resolve("lab-" + number.toString(16));
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }
}
