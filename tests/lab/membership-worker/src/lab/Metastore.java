package lab;

import alluxio.conf.AlluxioConfiguration;
import alluxio.conf.PropertyKey;

import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.nio.file.StandardOpenOption;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Stands where upstream's {@code RocksDBDoraMetaStore} has its database: the same folder, a LOCK that
 * one process holds, a CURRENT that is written at the start. A folder that cannot be made or written
 * ends the worker, there and here. Nothing is kept in it.
 */
final class Metastore {
  private static final Logger LOG = LoggerFactory.getLogger(Metastore.class);
  private static final String DATABASE = "DoraMeta";
  private static FileLock sLock; // held until the process ends

  private Metastore() {}

  static void open(AlluxioConfiguration conf) {
    Path folder =
        Paths.get(conf.getString(PropertyKey.DORA_WORKER_METASTORE_ROCKSDB_DIR), DATABASE);
    LOG.info("Opening the lab's metastore (no RocksDB) at {}", folder);
    try {
      Files.createDirectories(folder);
      Files.createDirectories(folder.resolveSibling(DATABASE + "-backup"));
      sLock = FileChannel.open(folder.resolve("LOCK"), StandardOpenOption.CREATE,
          StandardOpenOption.WRITE).tryLock();
      if (sLock == null) {
        throw new IOException("While lock file: " + folder + "/LOCK: Resource temporarily unavailable");
      }
      Files.write(folder.resolve("CURRENT"),
          "the lab's metastore\n".getBytes(StandardCharsets.UTF_8));
    } catch (IOException e) {
      throw new RuntimeException(e);
    }
  }
}
