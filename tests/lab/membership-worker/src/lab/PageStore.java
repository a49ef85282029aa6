package lab;

import alluxio.conf.AlluxioConfiguration;
import alluxio.conf.PropertyKey;

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

/** The folders of the page store, in the first of which the lab's worker keeps files that it read. */
final class PageStore {
  private final List<Path> mDirs = new ArrayList<>();

  private PageStore() {}

  static PageStore open(AlluxioConfiguration conf) throws IOException {
    PageStore store = new PageStore();
    for (String name : conf.getList(PropertyKey.WORKER_PAGE_STORE_DIRS)) {
      Path dir = Paths.get(name, conf.get(PropertyKey.WORKER_PAGE_STORE_TYPE).toString());
      Files.createDirectories(dir);
      if (!Files.isWritable(dir)) {
        throw new IOException("Page store directory cannot be written: " + dir);
      }
      store.mDirs.add(dir);
    }
    return store;
  }

  /** Whether all of a file of the under store is here. An empty file is never. */
  boolean holds(Path source) throws IOException {
    Path copy = copyOf(source);
    return Files.exists(copy) && Files.size(copy) > 0 && Files.size(copy) == Files.size(source);
  }

  /** The file's content, taken from the under store first where it is not here yet. */
  byte[] read(Path source) throws IOException {
    Path copy = copyOf(source);
    if (!holds(source)) {
      Path part = Files.createTempFile(copy.getParent(), "lab-", ".part");
      Files.copy(source, part, StandardCopyOption.REPLACE_EXISTING);
      Files.move(part, copy, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    }
    return Files.readAllBytes(copy);
  }

  private Path copyOf(Path source) {
    try {
      byte[] hash = MessageDigest.getInstance("SHA-256")
          .digest(source.toString().getBytes(StandardCharsets.UTF_8));
      return mDirs.get(0).resolve("lab-" + new BigInteger(1, hash).toString(16));
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }
}
