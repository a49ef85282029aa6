package lab;

import alluxio.conf.AlluxioConfiguration;
import alluxio.conf.PropertyKey;
import alluxio.util.io.PathUtils;

import java.nio.file.Path;
import java.nio.file.Paths;

/** The under store, of which the lab's build knows local folders alone. */
final class UnderStore {
  private final String mRoot;

  UnderStore(AlluxioConfiguration conf) {
    mRoot = conf.getString(PropertyKey.DORA_CLIENT_UFS_ROOT);
  }

  /** A path of Alluxio in the under store; one that lies there already is left as it is. */
  String convert(String path) {
    return path.startsWith(mRoot) ? path : PathUtils.concatPath(mRoot, path);
  }

  /** The reverse. */
  String alluxioPath(String ufs) {
    String rest = ufs.startsWith(mRoot) ? ufs.substring(mRoot.length()) : ufs;
    return rest.startsWith("/") ? rest : "/" + rest;
  }

  static Path local(String ufs) {
    String path = ufs.startsWith("file://") ? ufs.substring("file://".length()) : ufs;
    if (!path.startsWith("/")) {
      throw new IllegalArgumentException("The lab's build reads local folders alone, not " + ufs);
    }
    return Paths.get(path).normalize();
  }
}
