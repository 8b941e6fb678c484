/** Objects like other ones but for some members: how planted faults get in. */
import type { Disk } from '../../../replica/disk/disk.js';
import type { DiskSet } from '../../../replica/service/disk-set.js';
import type { DiskPlace } from '../../../replica/service/disk-slot.js';

/** Works on classes with private fields. */
export function override<T extends object>(target: T, changes: Partial<T>): T {
  return new Proxy(target, {
    get: (_target, name) => {
      if (Object.hasOwn(changes, name)) return Reflect.get(changes, name);
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

/** The disks of a daemon, each as `betray` makes it, also after it was opened again. */
export function betrayedDisks(disks: DiskSet, betray: (disk: Disk) => Disk): DiskSet {
  const betrayed = new WeakMap<Disk, Disk>();
  const places = new WeakMap<DiskPlace, DiskPlace>();
  const diskOf = (disk: Disk): Disk => {
    const found = betrayed.get(disk) ?? betray(disk);
    betrayed.set(disk, found);
    return found;
  };
  const placeOf = (place: DiskPlace): DiskPlace => {
    const found = places.get(place) ?? {
      get disk() {
        return diskOf(place.disk);
      },
    };
    places.set(place, found);
    return found;
  };
  return override(disks, {
    places: () => disks.places().map(placeOf),
    mostFree: () => placeOf(disks.mostFree()),
    retry: (onOpened) => disks.retry((place) => onOpened(placeOf(place))),
  });
}
